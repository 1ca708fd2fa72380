# One image for every process: `docker build -t recloop:0.1.0 .`, then choose the command.
FROM python:3.11-slim-bookworm AS build
# A pip index with CPU wheels of torch keeps the image small; empty = the default index.
ARG TORCH_INDEX=""
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY protos protos
COPY services services
COPY trainer trainer
COPY loadgen loadgen
COPY local local
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt .

FROM python:3.11-slim-bookworm
# A new volume takes its owner from the folder that it is mounted over; without such a folder it is root's, and nobody here is.
RUN groupadd --gid 10001 recloop && useradd --uid 10001 --gid 10001 --no-create-home recloop \
    && install -d -o 10001 -g 10001 /var/lib/recloop/model-store /var/lib/recloop/lake /var/lib/recloop/out /var/cache/recloop
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR=/tmp/numba \
    MALLOC_ARENA_MAX=2
USER 10001:10001
WORKDIR /var/lib/recloop
CMD ["python", "-m", "services.gateway"]
