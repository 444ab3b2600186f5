# The commands of a checkout. `make` alone lists them; each can be run again at little cost.

PYTHON ?= python3
SLOTS ?= $(shell nproc 2>/dev/null || echo 2)
# Tests mostly wait, so there are more at once than cores. ARGS='-n 0 ...': one at a time.
WORKERS ?= 5
ARGS ?=
# Where this is set, each of some thousand commands in the tests would compile the whole package again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test check unit system chaos pictures bench bench-slurm bench-sources bench-report bench-million clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## install into .venv and run a real example: 240 tasks, a barrier, a picture
	@mkdir -p demo && rm -f demo/bifurcation.txt && cp examples/logistic.tasks examples/logistic.py demo/
	cd demo && ../$(BIN)/disbatch -s localhost:$(SLOTS) logistic.tasks
	@cat demo/bifurcation.txt

test: $(VENV)/.installed-test ## install what the tests need, then run every check and every test
	@scripts/require tests
	@scripts/test

check: $(VENV)/.installed-test ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check src tests bench examples
	$(BIN)/mypy
	$(BIN)/mypy --strict bench examples
	$(BIN)/lint-imports

unit: $(VENV)/.installed-test ## the unit tests alone; ARGS='-k word' narrows them
	@scripts/require tests
	$(BIN)/python -m pytest -n $(WORKERS) tests/unit $(ARGS)

system: $(VENV)/.installed-test ## the system tests alone: installed commands, real servers, kills
	@scripts/require tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup tests/system $(ARGS)

chaos: $(VENV)/.installed-test ## runs that are broken at random, 50 seeds (CHAOS_SEED=7 CHAOS_SEEDS=1: that one again)
	@scripts/require tests
	CHAOS_SEED=$(or $(CHAOS_SEED),$(shell date +%s)) CHAOS_SEEDS=$(or $(CHAOS_SEEDS),50) \
	KILL_SEED=$(or $(KILL_SEED),$(shell date +%s)) KILL_SEEDS=$(or $(KILL_SEEDS),$(CHAOS_SEEDS),50) \
	  $(BIN)/python -m pytest -n $(WORKERS) tests/system/test_chaos.py tests/system/test_kill.py $(ARGS)

pictures: $(VENV)/.installed-test ## make the pictures of the web page in docs/pictures anew
	@scripts/require tests
	WEB_PICTURES=docs/pictures $(BIN)/python -m pytest -q tests/system/test_web.py -k eighty_nodes

bench: $(VENV)/.installed ## measure, each number beside its limit in the same run (about 5 minutes)
	@$(BIN)/python bench/bench.py

bench-slurm: $(VENV)/.installed ## how soon a Slurm job of 64 nodes works, all simulated here (as root)
	@scripts/require tests
	@$(BIN)/python bench/slurm_startup.py

bench-sources: $(VENV)/.installed ## tasks a second through each way in: file, stdin, dbutil submit, Python, key stores (about 3 minutes)
	@$(BIN)/python bench/sources.py

bench-report: $(VENV)/.installed ## a report of 1,000,000 lines: time and memory (about a minute)
	@$(BIN)/python bench/report.py

bench-million: $(VENV)/.installed ## 1,000,000 tasks through one driver: memory and CPU (about 25 minutes)
	@$(BIN)/python bench/bench.py --only stream --stream-tasks 1000000

clean: ## remove all that these commands made
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The package is installed editable, so only a change of its metadata or commands asks for a new installation.
$(VENV)/.installed: pyproject.toml src/disbatch/model/version.py $(wildcard bin/*)
	@scripts/make-venv $(PYTHON) $(VENV)
	$(PIP) install -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -e '.[test,check]'
	@touch $@
