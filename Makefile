# Everything runs from the environment that `make install` makes; `make` alone prints this help.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
RUN := $(VENV)/bin/python -m
# Named after what it installed, so a changed requirements.txt is installed by the next target.
STAMP := $(VENV)/.installed-$(shell cksum requirements.txt 2>/dev/null | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help install secrets demo run test check check-code check-stack check-service faults soak bench rivals format psql clean

help: ## Print this help.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  Settings are environment variables: PORT=8002 DATA_DIR=data SECRETS_DIR=secrets WORKER_REPLICAS=2 (all in .env.example)."

$(STAMP): requirements.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 is needed; install it or set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test ! -e $(VENV) -o -f $(VENV)/pyvenv.cfg || \
		{ echo "error: $(VENV) exists and is not a virtual environment; set VENV to a folder that may be made" >&2; exit 1; }
	@test ! -e $(VENV) -o -O $(VENV) || { echo "error: $(VENV) belongs to another user; set VENV to a folder of yours" >&2; exit 1; }
	@$(RUN) pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing requirements.txt into $(VENV) (the first time takes a few minutes)"
	@$(RUN) pip install --quiet --disable-pip-version-check -r requirements.txt
	@rm -f $(VENV)/.installed-*
	@touch $@

install: $(STAMP) ## Make the environment .venv from requirements.txt.

secrets: $(STAMP) ## Write the secret files that are missing; never overwrite one.
	@$(RUN) app secrets init

demo: $(STAMP) secrets ## Start everything, store and find a few hundred memories, stop: 0 when all went well.
	@$(RUN) app demo

run: $(STAMP) secrets ## Run the whole stack in the foreground until Ctrl-C; data stays in DATA_DIR.
	@$(RUN) app stack up

test: $(STAMP) ## Run every test.
	@$(RUN) pytest

check: $(STAMP) ## What continuous integration runs: lint, format, types, import contracts, tests.
	@$(MAKE) --no-print-directory --jobs=2 check-stack check-service

# Two halves of about the same length. That of whole stacks mostly waits for processes, so the cores have time for the other.
check-stack: check-code
	@$(RUN) pytest tests/acceptance tests/faults tests/console tests/migrations > $(VENV)/check-stack.log 2>&1 || { cat $(VENV)/check-stack.log; exit 1; }
	@cat $(VENV)/check-stack.log

check-code: $(STAMP)
	@{ $(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) mypy && $(VENV)/bin/lint-imports && \
		$(RUN) pytest tests/unit tests/architecture; } > $(VENV)/check-code.log 2>&1 || { cat $(VENV)/check-code.log; exit 1; }
	@cat $(VENV)/check-code.log

check-service: $(STAMP)
	@$(RUN) pytest --ignore=tests/unit --ignore=tests/architecture --ignore=tests/acceptance --ignore=tests/faults --ignore=tests/console --ignore=tests/migrations

faults: $(STAMP) ## Kill, stop, flood and cut everything, one case after the other; FAULTS_REPORT=folder keeps the report.
	@$(RUN) pytest tests/faults --faults=full $(if $(FAULTS_REPORT),--faults-report=$(FAULTS_REPORT))

soak: $(STAMP) ## Write, edit and delete under random faults for MINUTES=30, then account for everything.
	@$(RUN) tests.faults.soak --minutes $(or $(MINUTES),30)

bench: $(STAMP) secrets ## Measure this machine against the targets.
	@$(RUN) bench

RIVALS := .rivals
rivals: $(STAMP) secrets ## Measure this service beside mem0 and LangGraph's store, in an environment of their own.
	@test -x $(RIVALS)/bin/python || $(PYTHON) -m venv --clear $(RIVALS)
	@$(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check -r bench/rivals-requirements.txt
	@$(RUN) bench.rivals --python $(RIVALS)/bin/python

format: $(STAMP) ## Format the code and fix what can be fixed.
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

psql: $(STAMP) ## Open psql on the running stack (read only; ROLE=nexus_superuser for the owner).
	@$(RUN) app psql --role $(or $(ROLE),nexus_ro)

clean: ## Remove the environment and caches; data and secrets stay.
	rm -rf $(VENV) $(RIVALS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find app tasks tests migrations bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
