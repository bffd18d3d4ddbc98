# Every word that a developer or a workflow says. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/python -m

.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/ready: constraints.txt pyproject.toml
	@echo "Setting up $(VENV): about 250 packages of constraints.txt, torch among them (3 GB to download on Linux)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "$$(sed -nE 's/^(uv==[^ ]+).*/\1/p' constraints.txt)"
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r constraints.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

setup: $(VENV)/ready ## the environment of all other words

demo: $(VENV)/ready ## train the digits, then ask for the same again
	$(BIN)/python examples/digits/demo.py

programs: $(VENV)/ready ## the control plane's, found or built
	@$(BIN)/python tests/tools/programs.py

test: $(VENV)/ready programs ## everything that this machine can run. TESTS=
	$(RUN) pytest $(TESTS) -n 2 --dist loadgroup --cov=runonce --cov-report=term:skip-covered

check: $(VENV)/ready ## style, types, imports, licences
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/tools/generate.py --check
	$(BIN)/pip-licenses --from=mixed --partial-match --packages $$($(BIN)/python tests/tools/runtime_packages.py) \
	  --allow-only "MIT;Apache;BSD;ISC;Python Software Foundation;PSF;MPL" > /dev/null

generate: $(VENV)/ready ## files that are made from the code, anew
	$(BIN)/python tests/tools/generate.py
	$(BIN)/python tests/tools/chart_reference.py

bench: $(VENV)/ready ## ratios of docs/benchmarks.md
	@for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

prove: $(VENV)/ready ## the long proofs: thousands of generated files, fifty kills
	RUNONCE_CASES=20000 RUNONCE_KILLS=50 $(RUN) pytest -q -n 2 tests/unit/test_document_differential.py tests/local/test_kill.py
	RUNONCE_CASES=6000 $(RUN) pytest -q tests/controlplane/test_crd.py
	RUNONCE_PROVE=1 $(RUN) pytest -q -n 2 tests/controlplane/test_controller_killed.py tests/controlplane/test_controller_soak.py
	$(BIN)/python tests/tools/show_cluster.py
	RUNONCE_ROUNDS=300 $(RUN) pytest -q -rP tests/store/test_collect_beside_writers.py -k collectors_in_s3
	$(MAKE) kills crashes

crashes: $(VENV)/ready ## the table of docs/crashes.md: SIGKILL at every write of the folder store
	$(RUN) pytest -q -rP tests/store/test_crash.py
	RUNONCE_PROVE=1 $(RUN) pytest -q -n 2 tests/worker/test_worker_killed.py
	RUNONCE_PROVE=1 $(RUN) pytest -q -rP tests/store/test_crash_s3.py

cluster: $(VENV)/ready programs ## a control plane with the controller here, the examples applied, the table of how they end. EXAMPLES=
	$(BIN)/python tests/tools/show_cluster.py $(EXAMPLES)

kills: $(VENV)/ready ## fifty kills of a training, as a table; KILLS=15-28 takes some
	$(BIN)/python tests/tools/kill_table.py $(or $(KILLS),50)

chart: $(VENV)/ready ## the chart linted, rendered and compared with its schema; needs helm
	$(RUN) pytest -q -n 2 tests/chart

VERSION := $(shell sed -nE 's/^version = "(.*)"/\1/p' pyproject.toml)
REVISION := $(shell git rev-parse HEAD 2>/dev/null)

built: ## the images, built; needs a Docker engine alone. BASE_IMAGE=, TORCH=, TORCH_INDEX=, REGISTRY=, DOCKER_FLAGS=
	@for name in controller worker; do \
	  docker build -q $(DOCKER_FLAGS) -f docker/$$name.Dockerfile -t $(REGISTRY)runonce-dev/$$name:$(VERSION) \
	    $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) $(if $(TORCH),--build-arg TORCH=$(TORCH)) \
	    $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) . || exit 1; \
	done

images: built ## the images, built and measured
	@docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep 'runonce-dev/'

image-tests: $(VENV)/ready ## the images that were built, tested as restricted pods run them. REGISTRY=
	RUNONCE_IMAGES=1 $(RUN) pytest -q tests/images

kind: $(VENV)/ready built ## experiments in a real cluster, made and removed; needs kind and helm too. KIND_NODE_IMAGE=
	RUNONCE_KIND=1 $(RUN) pytest -q -n 4 --dist worksteal --durations=10 $(STORIES) tests/kind

dist: $(VENV)/ready ## the wheel and the source archive
	$(BIN)/hatchling build -d dist

chart-package: ## the chart as an archive in dist, its images those of OWNER= in the chart's registry; needs helm
	$(PYTHON) tests/tools/package_chart.py $(OWNER)

LOCKED := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q

lock: ## constraints.txt anew from pyproject.toml, and what the images install
	$(BIN)/uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header -q --upgrade -o constraints.txt
	@for extras in "controller --extra=controller" "worker --extra=worker" "torch --extra=worker --extra=torch"; do \
	  set -- $$extras; name=$$1; shift; \
	  $(BIN)/uv pip compile pyproject.toml $$* -c constraints.txt $(LOCKED) -o docker/requirements/$$name.txt || exit 1; \
	done
	@printf 'cyclonedx-bom\nhatchling\npip\n' | $(BIN)/uv pip compile - -c constraints.txt $(LOCKED) -o docker/requirements/tools.txt

.PHONY: $(shell sed -nE 's/^([a-z-]+):.*##.*/\1/p' $(firstword $(MAKEFILE_LIST)))
