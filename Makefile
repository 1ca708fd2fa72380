# Everything from a clean clone: `make demo`, `make test`. Each target does its own set-up; it is quick the second time.
#   PYTHON=...       the interpreter for the virtual environment (default: the system's, else the first of python3.11 to 3.13 found)
#   TORCH_INDEX=...  an extra package index that has CPU-only wheels of PyTorch (smaller; never needed)
#   DATA=... BARRIER=...   for replay: data set, event seconds between barriers; DATA for freshness and compare-samples too
#   QUICK=1          for freshness and rollback-demo: a fraction, that it works
#   SECURE=1         for demo and up: TLS, logins and rules everywhere (docs/security.md)
#   ARGS="..."       options of the command itself, which it lists on ARGS=--help; PYTEST_ARGS="..." those of pytest

SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.installed
FETCHED := $(VENV)/.fetched
ARGS ?=
PYTEST_ARGS ?=

.PHONY: help setup screenshots demo demo-days replay freshness backfill-demo rollback-demo compare-samples chaos-join bench bench-setup bench-loop bench-trainer bench-ranking \
  bench-collector bench-join bench-features bench-batch bench-scale flink-join k8s-validate image sbom test test-flink lint audit up down roll status logs doctor protos \
  clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

# The system's own first: distributions build it with profile-guided optimisation, version managers often do not, and the join then takes a
# tenth to a third more CPU. One without the headers that compiling the join needs is only taken when no other has them.
$(PY):
	@found=; for headers in True False; do \
	  for candidate in $(if $(PYTHON),"$(PYTHON)",/usr/bin/python3 python3.13 python3.12 python3.11 python3 python); do \
	    if [ -z "$$found" ] && "$$candidate" -c 'import ensurepip, os, sys, sysconfig; \
	      has = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")); \
	      sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14) or '$$headers' and not has)' >/dev/null 2>&1; then found=$$candidate; fi; \
	  done; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "setup: Python 3.11 to 3.13: needed by every process, with venv, $(if $(PYTHON),and $(PYTHON) is none,none found). Mend it with: apt-get install python3 python3-venv   (or make setup PYTHON=<path>)" >&2; exit 1; \
	fi; \
	echo "setup: virtual environment $(VENV) of $$("$$found" --version)"; \
	"$$found" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "setup: Python's venv module: needed for the virtual environment. Mend it with: apt-get install python3-venv" >&2; exit 1; }

$(INSTALLED): pyproject.toml constraints.txt | $(PY)
	@echo "setup: installing pinned packages (PyTorch is large; only the first time)"
	@$(BIN)/pip install --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	  -e '.[local,dev,tracing]' || { echo "setup: Python packages: needed by everything, not installed (see above). Mend it with: make setup, once the package index is reachable" >&2; exit 1; }
	@touch $@

$(FETCHED): local/kafka_jars.txt $(INSTALLED)
	@$(PY) -m local fetch
	@touch $@

# The join as machine code; quick when nothing has changed.
setup: $(FETCHED) ## virtual environment, packages, Kafka's jars, Redis, Java, the compiled join
	@$(PY) -m local compile

demo: setup ## the whole loop for two minutes under load; out/demo.json, .html
	@$(PY) -m local demo $(ARGS)

# A replay waits for a barrier on every partition, and has one process of each service.
replay freshness: export RECLOOP_EVENT_PARTITIONS ?= 1

replay: setup ## make replay DATA=<ml-100k folder, .csv or .parquet> [BARRIER=<event seconds>]; out/replay.json
	@if [ -z "$(DATA)" ]; then echo "replay: DATA: needed, the events to replay. Mend it with: make replay DATA=<folder of ml-100k>" >&2; exit 1; fi
	@$(PY) -m local replay --data "$(DATA)" $(if $(BARRIER),--barrier-s $(BARRIER)) $(ARGS)

freshness: setup ## make freshness [DATA=<ml-100k>] [QUICK=1]: AUC by how often the model is synchronised, on a log and in the simulated world; out/freshness.json, .html
	@$(PY) -m local freshness $(if $(DATA),--data "$(DATA)") $(if $(QUICK),--quick) $(ARGS)

demo-days: setup ## five simulated days, four ways to update a model, Black Friday on day 4; out/demo-days.json
	@$(PY) -m local demo-days $(ARGS)

backfill-demo: setup ## a feature view joins a running stack with its whole past; out/backfill.json
	@$(PY) -m local backfill-demo $(ARGS)

rollback-demo: setup ## faults planted under load, found and mended by the loop [QUICK=1]; out/rollback.json
	@$(PY) -m local rollback-demo $(if $(QUICK),--quick) $(ARGS)

compare-samples: setup ## all ways to build samples on one traffic [DATA=<real log>]; out/samples.json, .html
	@$(PY) -m local compare-samples $(if $(DATA),--data "$(DATA)") $(ARGS)

chaos-join: setup ## kill, pause and restart the join (ours, Flink) and Kafka under load, then count; out/chaos-join.json
	@$(PY) -m local chaos-join $(ARGS)

flink-join: setup ## the join on a Flink cluster of processes, beside the joiner of a running stack; Ctrl-C stops it
	@$(PY) -m local flink-join $(ARGS)

bench-join: setup ## the join from Kafka to Kafka, per core, beside Flink SQL's; out/bench-join.json
	@$(PY) -m benchmarks.bench_join $(ARGS)

# The peers, pinned, in an environment of their own: nothing of the project depends on them.
PEERS := .venv-bench

bench-setup: setup $(PEERS)/.installed ## the environment of what the benchmarks compare with (Feast, Polars, FastAPI, faiss, FBGEMM, torch)

# FBGEMM names no torch in its requirements, and the one that it was built for has to be there.
$(PEERS)/.installed: benchmarks/peers.txt | $(PY)
	@$(PY) -m venv $(PEERS)
	@$(PEERS)/bin/pip install --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r benchmarks/peers.txt || { \
	  echo "bench-setup: peers of the benchmarks: needed to compare with, not installed (see above). Mend it with: make bench-setup, once the package index is reachable" >&2; exit 1; }
	@touch $@

bench: bench-setup ## every benchmark but bench-batch and bench-scale, at most 40 minutes [ARGS="--only loop trainer"]; out/bench.json
	@$(PY) -m benchmarks.bench --peers $(PEERS)/bin/python $(ARGS)

bench-loop: bench-setup ## the real loop beside a bare gRPC chain and an assembled stack; latency and freshness under load; out/bench-loop.json
	@$(PY) -m benchmarks.bench_loop --peers $(PEERS)/bin/python $(ARGS)

bench-trainer: bench-setup ## the trainer's step beside FBGEMM's fused table; ids found a second; memory; out/bench-trainer.json
	@$(PY) -m benchmarks.bench_trainer --peers $(PEERS)/bin/python $(ARGS)

bench-ranking: setup ## ranking under deltas and during a full swap beside ranking in peace; memory; out/bench-ranking.json
	@$(PY) -m benchmarks.bench_ranking $(ARGS)

bench-scale: setup ## how cost grows with candidates, items, rows, deltas, partitions; what 1,000 requests/s carry, at most 15 minutes [ARGS=--docs]; out/bench-scale.json
	@$(PY) -m benchmarks.bench_scale $(ARGS)

bench-collector: setup ## events acknowledged at acks=all beside a bare producer; out/bench-collector.json
	@$(PY) -m benchmarks.bench_collector $(ARGS)

bench-features: bench-setup ## GetFeatures beside an echo and Feast; the as-of join; out/bench-features.json
	@$(PY) -m benchmarks.bench_features --peers $(PEERS)/bin/python $(ARGS)

# In an environment of their own: nothing of the project depends on them.
CHECKERS := .venv-check

$(CHECKERS)/.installed: local/security_check.txt | $(PY)
	@$(PY) -m venv $(CHECKERS)
	@$(CHECKERS)/bin/pip install --disable-pip-version-check -q -r local/security_check.txt || { \
	  echo "audit: bandit, pip-audit, pip-licenses: needed to look with, not installed (see above). Mend it with: make audit, once the package index is reachable" >&2; exit 1; }
	@touch $@

# --strict: what the index cannot say anything about is a failure too, not silence.
audit: setup $(CHECKERS)/.installed ## risky code (bandit), licences of all packages (out/licences.md), known vulnerabilities (pip-audit)
	@$(CHECKERS)/bin/bandit -q -ll -c pyproject.toml -r services trainer loadgen local
	@mkdir -p out && $(CHECKERS)/bin/pip-licenses --python=$(PY) --format=markdown --with-urls --output-file=out/licences.md
	@$(CHECKERS)/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off -r constraints.txt

bench-batch: setup ## a day's full model by two processes under torchrun beside one; out/bench-batch.json
	@$(PY) -m benchmarks.bench_batch $(ARGS)

lint: setup ## ruff, mypy, import rules, buf
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@cd protos && ../$(BIN)/buf lint

test: lint ## everything that lint checks, then all tests [PYTEST_ARGS=tests/unit]
	@$(BIN)/pytest $(PYTEST_ARGS)

test-flink: setup ## the join on Flink: built from its sources, its tests (needs Maven and a JDK)
	@$(PY) -m local flink-jar
	@$(BIN)/pytest tests/flink $(PYTEST_ARGS)

k8s-validate: setup ## overlays against schemas and rules, alerts against their tests; no cluster (needs kubectl or kustomize; Go for operators' kinds, promtool)
	@$(PY) -m k8s.checks $(ARGS)

image: ## the image of every process, with this commit in its labels (needs Docker) [TORCH_INDEX=...]
	docker build -t recloop:0.1.0 --build-arg COMMIT=$$(git rev-parse HEAD) --build-arg TORCH_INDEX=$(TORCH_INDEX) .

# In an environment of its own: nothing of the project depends on it.
sbom: setup ## what the virtual environment is made of, as CycloneDX; out/sbom.json (of the image: see Dockerfile)
	@$(PY) -m venv .venv-sbom && .venv-sbom/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	@mkdir -p out && .venv-sbom/bin/cyclonedx-py environment --output-format JSON -o out/sbom.json $(PY)

screenshots: setup ## the live page as the tests see it, in docs (needs Chromium)
	@RECLOOP_SCREENSHOTS=docs $(BIN)/pytest tests/system/test_live_page.py $(PYTEST_ARGS)

up: setup ## start everything, seeded; Ctrl-C stops it (ARGS=--detach returns; ARGS="--with lake": the lake too)
	@$(PY) -m local up $(ARGS)

down: | $(INSTALLED) ## stop everything
	@$(PY) -m local down $(ARGS)

roll: | $(INSTALLED) ## replace every process of the running stack under load, then count (ARGS="ranking" only that one); out/roll.json
	@$(PY) -m local roll $(ARGS)

status: | $(INSTALLED) ## what runs where
	@$(PY) -m local status $(ARGS)

logs: | $(INSTALLED) ## the ends of the logs (ARGS="-f ranking" follows one)
	@$(PY) -m local logs $(ARGS)

doctor: | $(INSTALLED) ## is everything here?
	@$(PY) -m local doctor $(ARGS)

protos: setup ## generate the code of the protos again
	@$(PY) protos/generate.py

clean: ## what runs leave behind and the virtual environment; not the downloads in the user's cache
	@if [ -x $(PY) ] && [ -f out/run/state.json ]; then $(PY) -m local down; fi
	rm -rf out build flink/target $(VENV) $(PEERS) $(CHECKERS) .venv-sbom *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
