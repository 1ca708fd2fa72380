# One image for every process; the command says which. `make image`, or
#   docker build -t recloop:0.1.0 --build-arg COMMIT=$(git rev-parse HEAD) --build-arg TORCH_INDEX=<index of CPU wheels> .
# What is in it, as CycloneDX: docker build --target sbom --output out .   (out/sbom.json; `make sbom` without Docker)

FROM python:3.11.14-slim-bookworm AS build
# A pip index with CPU wheels of torch keeps the image small; empty = the default index, with CUDA.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Without pip: what is installed later would be unknown to the list below.
RUN python -m venv --without-pip /opt/venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY protos protos
COPY services services
COPY trainer trainer
COPY loadgen loadgen
COPY local local
RUN pip --python /opt/venv/bin/python install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt '.[tracing]'

# The join as machine code, from the same files (local/compiled.py). Its compilers stay here.
FROM build AS compiled
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip --python /opt/venv/bin/python install -c constraints.txt mypy setuptools \
    && /opt/venv/bin/python -c "from local import compiled; compiled.build(print)" \
    && test -d build/compiled/services

FROM build AS listed
RUN pip install cyclonedx-bom==7.5.0 && cyclonedx-py environment /opt/venv/bin/python --output-format JSON -o /sbom.json

FROM scratch AS sbom
COPY --from=listed /sbom.json /sbom.json

FROM python:3.11.14-slim-bookworm AS run
# A new volume takes its owner from the folder that it is mounted over; without such a folder it is root's, and nobody here is.
RUN groupadd --gid 10001 recloop && useradd --uid 10001 --gid 10001 --no-create-home recloop \
    && install -d -o 10001 -g 10001 /var/lib/recloop/model-store /var/lib/recloop/lake /var/lib/recloop/out /var/cache/recloop
COPY --from=build /opt/venv /opt/venv
# A process that joins starts in this folder, whose code then comes before the installed one.
COPY --from=compiled /src/build/compiled /opt/joiner
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR=/tmp/numba MALLOC_ARENA_MAX=2
# Everything is written to volumes and /tmp: run it with a read-only root.
USER 10001:10001
WORKDIR /var/lib/recloop
# The admin port of the process, for who does not probe by himself (Kubernetes does).
ENV HEALTH_TARGET=127.0.0.1:7151
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=24 \
  CMD ["sh", "-c", "exec python -m services.runtime.probe \"$HEALTH_TARGET\""]
CMD ["python", "-m", "services.gateway"]
# Last: they differ in every build.
ARG VERSION=0.1.0
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="recloop" org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
