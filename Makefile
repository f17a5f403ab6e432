# Every target builds the environment in .venv first if it is not there; nothing else is needed
# than Python 3.11 or newer and make. PYTHON=... names another interpreter, ARGS=... goes to the
# program behind the target: make test ARGS="tests/queue -x".

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench environment constraints clean

ARGS ?=
python := .venv/bin/python

help: ## list the targets
	@awk -F ':[^#]*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: environment ## send a real campaign over SMTP on this machine and show the result
	@$(python) -m mailrace demo $(ARGS)

test: environment ## run every test, in random order
	@$(python) -m pytest $(ARGS)

check: environment ## format, lint, types, imports, hygiene: what CI runs besides the tests
	$(python) -m ruff format --check
	$(python) -m ruff check
	$(python) -m mypy
	.venv/bin/lint-imports --no-logo
	$(python) tools/hygiene.py

format: environment ## let ruff format the code and repair what it can
	$(python) -m ruff format
	$(python) -m ruff check --fix

bench: environment ## measure the speeds on this machine, next to limits and peers
	@sh tools/servers.sh
	@$(python) benchmarks/run.py $(ARGS)

environment: ## build .venv from constraints.txt; the other targets do this themselves
	@sh tools/environment.sh

constraints: environment ## resolve constraints.txt anew; ARGS=--upgrade takes newer versions
	sh tools/constraints.sh $(ARGS)

clean: ## remove the environment and everything that was made
	rm -rf .venv build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
