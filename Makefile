PYTHON ?= python

# Everything that must hold before a change lands: lint, import rules, types, docs, all tests.
.PHONY: check lint test test-all docs
check: lint docs test-all

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"
	$(PYTHON) -m mypy

# What to run while working: no test that starts a command, a cluster or a server; fewer examples of each property.
test: lint
	$(PYTHON) -m pytest -n 2 --dist loadfile -m unit --hypothesis-profile quick

test-all:
	$(PYTHON) -m pytest -n 2 --dist loadfile

# The pages of docs/ into site/; broken links and anchors are errors.
docs:
	$(PYTHON) -m mkdocs build --strict
