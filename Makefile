# Two commands on a fresh machine: `make sweep` and `make test`. VENV=path reuses an environment.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
ARGS ?=
JOBS ?= 2
PORT ?= 5000
TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db

.PHONY: sweep test setup lint types check docs ui serve clean

sweep: setup
	$(BIN)/python sweeps/run.py $(ARGS)

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

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

ui: setup
	@echo "MLflow UI on http://127.0.0.1:$(PORT) (Ctrl-C ends it)"
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui \
		--backend-store-uri $(TRACKING_URI) \
		--default-artifact-root file://$(CURDIR)/mlartifacts --host 127.0.0.1 --port $(PORT)

# MLflow calls uvicorn by its name, so the environment's programs are put in the path.
serve: PORT = 5001
serve: setup
	@PATH="$(abspath $(BIN)):$$PATH" MLFLOW_TRACKING_URI=$(TRACKING_URI) \
		MLFLOW_DISABLE_TELEMETRY=true mlflow models serve --env-manager local \
		-m models:/unetexp@champion --host 127.0.0.1 --port $(PORT)

clean:
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
