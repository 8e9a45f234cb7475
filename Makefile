# Every target sets up .venv from the hashed lock when it is missing or older than the lock.
SHELL := /bin/bash
PYTHON ?= python3
CONFIG ?= configs/default.yaml
CORES ?= 2
# Cached bytecode halves the start of every kernel; an environment that forbids it would slow the chain down.
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
READY := .venv/.ready

.PHONY: pipeline test lab figures gpu-bundle lock clean help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

define CHECK_PYTHON
$(PYTHON) -c 'import sys; sys.exit("make: Python 3.11 to 3.13 is needed, found %d.%d; name one with PYTHON, for example: make PYTHON=python3.12 ..." % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
endef

$(READY): requirements.lock pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -m1 '^uv==' constraints.txt)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(READY)

# Drawing from tables needs a tenth of that, and no torch: where .venv is not there, a small one is enough.
FIGURES_READY := .venv-figures/.ready
FIGURES_PYTHON := $(if $(wildcard $(READY)),$(BIN),.venv-figures/bin)/python

$(FIGURES_READY): requirements-figures.lock
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-figures
	.venv-figures/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements-figures.lock
	@touch $(FIGURES_READY)

pipeline: $(READY)  ## run the whole chain (CONFIG=configs/default.yaml) and print the key results and the report
	@$(BIN)/cytolib run --config $(CONFIG) --cores $(CORES)

test: $(READY)  ## lint, types, unit, estimator, notebook, pipeline and browser tests
	@$(BIN)/python -m tests

lab: $(READY)  ## open JupyterLab on 127.0.0.1 with its token
	$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=notebooks $$([ "$$(id -u)" = 0 ] && echo --allow-root)

figures: $(if $(wildcard $(READY)),,$(FIGURES_READY))  ## draw every figure from stored tables, without torch (RUN=name: of that run; CHECK=1: compare with the published)
	@$(FIGURES_PYTHON) -m cytolib.cli figures $(if $(RUN),--run '$(RUN)') $(if $(CHECK),--check)

gpu-bundle: CONFIG := $(if $(filter file,$(origin CONFIG)),configs/gpu.yaml,$(CONFIG))
gpu-bundle: $(READY)  ## a folder and tar for a machine with a GPU, without Jupyter or network (CONFIG=configs/gpu.yaml, OPTIONS=)
	@$(BIN)/cytolib run --config $(CONFIG) --cores $(CORES) --until $(if $(findstring --images,$(OPTIONS)),00_data,01_embed)
	@$(BIN)/cytolib bundle make --config $(CONFIG) $(OPTIONS)

lock:  ## resolve pyproject.toml anew into requirements.lock and constraints.txt (needs uv on the path or in .venv)
	@UV=$$(command -v $(BIN)/uv || command -v uv) && \
	$$UV pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header --extra notebooks --extra test --extra build pyproject.toml -o requirements.lock && \
	sed -n 's/ *\\$$//; /^[a-z0-9]/p' requirements.lock > constraints.txt && \
	$$UV pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --constraints constraints.txt --group figures -o requirements-figures.lock

clean:  ## remove environments, caches and bundles, and with RUNS=1 all runs (papermill_runs/reference stays)
	rm -rf .venv .venv-figures .cache .hypothesis .pytest_cache .mypy_cache .ruff_cache build gpu_bundle gpu_bundle.tar
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	$(if $(RUNS),find papermill_runs -mindepth 1 -maxdepth 1 ! -name reference ! -name .gitignore -exec rm -rf {} +)
