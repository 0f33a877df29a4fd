# The daily habits. `make check` is the gate.
PYTHON ?= .venv/bin/python

.PHONY: help install check lint types test fast sim demo bench fix

help:     ## list the targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'
install:  ## make the virtual environment
	python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev,tansu]'
check: lint types test  ## all that the continuous build checks
lint:     ## ruff and import-linter
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && .venv/bin/lint-imports
types:    ## mypy
	$(PYTHON) -m mypy
test:     ## every test, in two processes; starts Kafka
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
fast:     ## the tests that need no broker
	$(PYTHON) -m pytest -m 'not broker and not slow'
sim:      ## simulated runs: make sim, make sim SEEDS=50000, make sim SEED=57
	$(PYTHON) -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS))
demo:     ## the main job
	.venv/bin/headrace demo
bench:    ## the benchmarks
	$(PYTHON) -m benchmarks
fix:      ## let ruff mend what it can
	$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .
