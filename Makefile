# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := $(wildcard libs/* services/* deploy/local/*)
STAMP := $(VENV)/.set-up
NATIVE := $(wildcard libs/convert/hatch_build.py libs/convert/src/fusebus/convert/*.c)

.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # else each of the hundreds of processes of a test run compiles every package anew
.PHONY: help setup check test test-long test-model test-model-full train-demo test-broker-kills test-observability bench bench-compare bench-profile bench-long bench-gpu demo up down logs test-compose lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

setup: $(STAMP)  ## virtual environment with every package, dependencies pinned by hash

$(STAMP): requirements.txt $(addsuffix /pyproject.toml,$(PACKAGES)) scripts/setup requirements-compiler.txt $(NATIVE)
	@PYTHON=$(PYTHON) VENV=$(VENV) scripts/setup $(PACKAGES)
	@touch $@

check: $(STAMP)  ## lint, format, types, import rules, each package alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(foreach package,$(PACKAGES),-p fusebus.$(notdir $(wildcard $(package)/src/fusebus/*)))
	$(BIN)/lint-imports
	$(BIN)/python scripts/check-alone

test: $(STAMP)  ## every test that needs only Python (node comes along if it is missing)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not long'

test-long: $(STAMP)  ## what wants minutes: the corpus of odd files, models switched under load, services killed
	$(BIN)/pytest -n 2 --dist loadgroup -m long

test-model: $(STAMP)  ## training and export of the demo model (installs torch and transformers)
	scripts/setup-model
	$(BIN)/pytest -n 2 --dist loadfile tests/model

train-demo: $(STAMP)  ## the demo model anew (33 minutes on two quiet cores); interrupted, it goes on
	scripts/setup-model
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/fusebus model train --demo --out out/demo-checkpoint
	rm -rf out/demo-model
	$(BIN)/fusebus model export out/demo-checkpoint --prompt "fuse neutral" --precision fp16 --top-k 8 \
		--name fuse-neutral-demo --version 4 --out out/demo-model
	$(BIN)/fusebus model evaluate out/demo-model --boards 300 --first-seed 300000 --megapixels 0.3 --tune --worst 0

evaluate-demo: $(STAMP)  ## measure what train-demo made on 500 unseen boards of 1 to 12 megapixels (some minutes)
	$(BIN)/fusebus model evaluate out/demo-model --boards 500 --record --out out/demo-model-worst

test-model-full: $(STAMP)  ## SAM 3 at full size, random weights: export, parity, one picture on the CPU (20 GB, long)
	scripts/setup-model
	$(BIN)/pytest -s tests/model_full

test-broker-kills: $(STAMP)  ## kill -9 of the durable broker at 100 random moments under load (some minutes)
	BROKER_KILLS=100 $(BIN)/pytest -s tests/system/test_broker_kills.py

test-observability: $(STAMP)  ## traces, metrics, alerts, dashboard, secrets: needs Debian's package prometheus
	$(BIN)/pytest tests/observability

bench: $(STAMP)  ## every benchmark in 15 minutes on 2 quiet cores: one table, benchmarks/results.json, plots in out/bench
	$(BIN)/python tests/benchmarks/run_all.py

bench-compare: $(STAMP)  ## the results at hand against the committed ones
	$(BIN)/python tests/benchmarks/compare.py

bench-profile: $(STAMP)  ## a flame graph of a worker: out/bench/worker.svg
	$(BIN)/python tests/benchmarks/flame_graph.py out/bench/worker.svg

bench-long: $(STAMP)  ## what takes an hour: all broker figures and its memory over time, 10,000 images, 5,000 conversions
	$(BIN)/python tests/benchmarks/run_all.py --long

bench-gpu: $(STAMP)  ## full-size SAM 3 on the first GPU (needs the extras of docs/performance.md), benchmarks/gpu.json
	$(BIN)/python tests/benchmarks/bench_gpu.py

demo: $(STAMP)  ## the whole flow on this machine: 24 photos to pictures, JSON, report and mail in out/demo
	@$(BIN)/fusebus demo --out out/demo

up:  ## the whole stack in containers (docs/docker.md); without Docker: .venv/bin/fusebus up
	FUSEBUS_REVISION=$$(git rev-parse --short HEAD 2>/dev/null || echo unknown) COMPOSE_PARALLEL_LIMIT=1 docker compose build
	docker compose up --detach --wait
	@deploy/docker/host-settings
	@echo "mail      http://127.0.0.1:$${FUSEBUS_MAIL_PORT:-8025}"

down:  ## stop the containers; what they keep stays (docker compose down --volumes removes it)
	docker compose --profile '*' down

logs:  ## what the containers write, until Ctrl-C
	docker compose logs --follow --tail 50

test-compose: $(STAMP)  ## the stack in containers: built, used, scaled, renewed, killed (12 minutes at most; needs Docker)
	$(BIN)/pytest -ra tests/compose

lock: $(STAMP)  ## pin the dependencies anew
	PATH="$(abspath $(BIN)):$$PATH" scripts/lock

clean:  ## remove what the targets made (the virtual environment and caches too)
	rm -rf $(VENV) libs/convert/src/fusebus/convert/*.so.1 .cache .fusebus out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
