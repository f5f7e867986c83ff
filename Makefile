# `make` does everything from nothing; `make help` says what else there is.
# Needs Python 3.11; all else is installed into .venv, whose packages requirements.lock pins.
PYTHON ?= python3.11
BIN := .venv/bin
LAUNCH := $(BIN)/python -m experiment.launch --cores all
STAGES := data profiles fig_6 fig_7 fig_8 fig_9 report sim_quality sim_timings
PACKAGES := jellyfish server client experiment scripts
MYPY := $(BIN)/mypy
# Tests start hundreds of processes, which need not compile the project anew, each of them.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
SMK := workflow/Snakefile $(wildcard workflow/rules/*.smk)
ARGS ?=
MINUTES ?= 30

.DEFAULT_GOAL := all
SCENARIOS := smoke simulated paper policies
.PHONY: all $(SCENARIOS) fig_policies fig_ablation fig_agreement $(STAGES) test test-slow test-hosts chaos chaos-mutants soak check lint format install install-dev lock clean distclean help
.PHONY: hosts testbed testbed-down install-testbed

all: install ## the default scenario: data, profiles, runs, scores, figures, report
	@$(LAUNCH) all $(ARGS)

$(SCENARIOS): install ## another scenario, whole: that of config/NAME.yaml
	@$(LAUNCH) all --configfile config/$@.yaml $(ARGS)

$(STAGES): install ## one stage of the default scenario, and what it needs
	@$(LAUNCH) $@ $(ARGS)

fig_policies fig_ablation: install ## policies side by side, or from one to the other
	@$(LAUNCH) $@ --configfile config/policies.yaml $(ARGS)

fig_agreement: install ## the same cells in both worlds; 36 minutes on a quiet machine
	@$(LAUNCH) $@ --configfile config/agreement.yaml $(ARGS)

# What measures times runs after the others, by itself. Exit code 5: ARGS select no test of a half.
test: install-dev ## the tests, without those marked slow
	@$(PYTEST) -m "not alone and not slow and not results" -n 2 --dist worksteal $(ARGS); \
	beside=$$?; $(PYTEST) -m "alone and not slow and not results" $(ARGS); \
	case "$$beside $$?" in "0 0" | "0 5" | "5 0") ;; *) exit 1 ;; esac

# -rs: what is left out where nobody is root is told, with the reason.
test-hosts: install-dev ## (root) the tests over real SSH, tc and namespaces that `make test` leaves out
	@$(PYTEST) -m hosts -rs $(ARGS)

test-slow: install-dev ## the slow tests but those: behaviours in real time, guides, grids on clusters
	@$(PYTEST) -m "slow and not hosts" -rs $(ARGS)

SEEDS ?= 10000
chaos: install-dev ## seeded faults in virtual time, SEEDS=10000 of them: a table, failing seeds kept
	@$(BIN)/python -m tests.chaos --corpus --seeds $(SEEDS) $(ARGS)

chaos-mutants: install-dev ## whether those seeds find defects that are put back
	@$(BIN)/python -m tests.chaos.mutation $(ARGS)

soak: install-dev ## faults against a real server, clients and network, for MINUTES (30)
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

check: install-dev ## whether the default scenario shows what it must; after `make`
	@$(BIN)/python -m pytest -m results $(ARGS)

lint: install-dev ## ruff, mypy, snakefmt, snakemake --lint; that every mutant fits the code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MYPY)
	@$(BIN)/python -m tests.chaos.mutation --check
	@$(BIN)/snakefmt --check $(SMK)
	@$(BIN)/snakemake --lint

format: install-dev ## put every file into its form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/snakefmt $(SMK)

# The stamp is a copy of the lock, compared by content: a checkout that touches the lock installs nothing.
install: .venv/bin/python
	@cmp -s requirements.lock .venv/installed.lock || { \
	  echo "Installing $$(grep -c == requirements.lock) packages into .venv (2 GB; some minutes)"; \
	  $(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.lock && \
	  cp requirements.lock .venv/installed.lock; }

install-dev: install
	@cmp -s requirements-dev.lock .venv/installed-dev.lock || { \
	  echo "Installing $$(grep -c == requirements-dev.lock) packages for development into .venv"; \
	  $(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements-dev.lock && \
	  cp requirements-dev.lock .venv/installed-dev.lock; }

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: no $(PYTHON) here; install Python 3.11 or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

lock: ## write both lock files anew from the versions in pyproject.toml
	@$(PYTHON) envs/lock.py

hosts: install ## look at the hosts that ARGS name; with --dry-run, what root would do there
	@$(BIN)/python -m scripts.hosts $(ARGS)

testbed: install ## (root) hosts in network namespaces of this machine, with sshd: docs/testbed.md
	@$(BIN)/python -m experiment.testbed up $(ARGS)

testbed-down: ## (root) remove them, and all that runs in them
	@$(BIN)/python -m experiment.testbed down $(ARGS)

install-testbed: ## (root) the system packages that a testbed needs and this machine lacks
	@envs/testbed.sh

clean: ## remove results and caches (downloads too)
	rm -rf results .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean ## ... and the installation
	rm -rf .venv

help: ## this list
	@awk -F ': .*## ' '/^[a-z$$].*: .*## / { sub(/\$$\(STAGES\)/, "$(STAGES)", $$1); sub(/\$$\(SCENARIOS\)/, "$(SCENARIOS)", $$1); printf "%-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
