# Two commands on a fresh machine: `make sweep` and `make test`. VENV=path reuses an environment.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
ARGS ?=
JOBS ?= 2
PORT ?= 5000
TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db

.PHONY: sweep test test-slow test-all setup lint types check docs bench-quick bench-gpu ui serve clean

sweep: setup
	$(BIN)/python sweeps/run.py $(ARGS)

# Files stay whole, as tests share what a file's fixtures made; in their order, the long ones first.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST) -m "not slow" $(ARGS)

# Whole sweeps, clusters and browsers.
test-slow: setup
	$(PYTEST) -m slow $(ARGS)

test-all: test test-slow

# The environment remembers which checkout and which versions it was made for.
setup:
	@stamp="$(CURDIR) $$(cat pyproject.toml constraints.txt | cksum)"; \
	if [ "$$(cat $(VENV)/.unetexp 2>/dev/null)" != "$$stamp" ]; then \
		test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
		echo "installing into $(VENV): about 7 GB and a few minutes the first time"; \
		$(BIN)/python -m pip install -q --disable-pip-version-check \
			-c constraints.txt -e '.[dev]' && echo "$$stamp" > $(VENV)/.unetexp; \
	fi

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache

types: setup
	$(BIN)/mypy

check: test lint types

# The generated pages, then the site; --strict fails on a link that leads nowhere.
docs: setup
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html; with search: $(BIN)/python -m http.server --bind 127.0.0.1 -d site"

# segmentation_models_pytorch and albumentations take part where they are installed: the extra `bench`.
bench-quick: setup
	$(BIN)/python -m benchmarks.train_step --quick
	$(BIN)/python -m benchmarks.data --quick
	$(BIN)/python -m benchmarks.trial --quick

# No setup: a machine with a GPU has a torch of its own, and Ray, Optuna and MLflow are not needed.
# PYTHON=... takes another one.
bench-gpu:
	$(PYTHON) -m benchmarks.gpu --out bench-gpu.md $(ARGS)

# Addresses reach the shell as variables, so that a path may hold spaces and quotes.
ui serve: export STORE = $(TRACKING_URI)
ui: export ARTIFACTS = file://$(CURDIR)/mlartifacts
ui: setup
	@echo "MLflow UI on http://127.0.0.1:$(PORT) (Ctrl-C ends it)"
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui \
		--backend-store-uri "$$STORE" \
		--default-artifact-root "$$ARTIFACTS" --host 127.0.0.1 --port $(PORT)

# MODEL=... serves another one: a registered model, a run's id, a folder or an exported file.
serve: PORT = 5001
serve: export MODEL = models:/unetexp@champion
serve: setup
	@$(BIN)/unetexp serve "$$MODEL" --port $(PORT) --tracking-uri "$$STORE" $(ARGS)

clean:
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
