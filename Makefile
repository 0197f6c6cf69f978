# `make demo` and `make test` need Python 3.11 to 3.13 with venv, and nothing else: they set up .venv themselves.
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,$(shell $(name) -c 'import sys, venv; print("$(name)") if (3, 11) <= sys.version_info < (3, 14) else None' 2>/dev/null | grep -v None)))
BIN := .venv/bin
STAMP := .venv/.installed
# Processes that share the tests, file by file; each has its own servers. Half of their time is waiting, so they are more
# than the two cores of a small machine. 0: no processes beside this one, for a debugger.
WORKERS ?= 3

.PHONY: install demo test check bench fuzz clean

install: $(STAMP)

$(STAMP): setup.cfg setup.py pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: install one or name it, make PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[embedded,lab,dev]'
	@touch $(STAMP)

demo: install
	@$(BIN)/convergedon demo

test: install
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p build/types && ln -sfn ../.. build/types/convergedon
	@MYPYPATH=build/types $(BIN)/mypy --explicit-package-bases --namespace-packages $(foreach name,core handlers mediation adapters openapi policies demo,-p convergedon.$(name))
	@$(BIN)/python -m tests.checks

bench: install
	@$(BIN)/python -m tests.bench $(ARGS)

# What reads bytes of strangers and files of operators, and then the APIs, for so many seconds each
fuzz: install
	@FUZZ_SECONDS=$(or $(FUZZ_SECONDS),3600) $(BIN)/python -m pytest tests/fuzz tests/conformance/test_schemathesis.py $(ARGS)

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache artefacts
