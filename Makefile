# Every target does its own set-up in a fresh clone. Needed: Python >= 3.11 with venv, make and
# a C compiler. Another interpreter: make test PYTHON=python3.13

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# what an installation is made of; Python sources are used in place
SOURCES := pyproject.toml setup.py $(wildcard src/packstone/*/*.c src/packstone/*/*.h)

.PHONY: demo test bench lint soak soak-fuzz man docs record clean

demo: $(VENV)/installed
	$(BIN)/python demo/demo.py

# three at once on two processors, for many wait for servers and disks; a file's own tests share what it sets up
test: $(VENV)/installed
	$(BIN)/python -m pytest -n 3 --dist loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-bench
	$(BIN)/python bench/run.py

# the same tests with many more examples, and those too long for every day
soak: $(VENV)/installed
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -m "soak or not soak"

# the decoders on hostile input, guided by coverage where atheris can be had: FUZZ_SECONDS each;
# then the kernels in C under sanitizers, and under libFuzzer where there is a clang
FUZZ_SECONDS ?= 600
soak-fuzz: $(VENV)/installed
	-$(PIP) install --editable '.[dev,fuzz]'
	cd tests && ../$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)
	PYTHON=$(CURDIR)/$(BIN)/python sh tests/soak/kernel_sanitizers.sh
	PYTHON=$(CURDIR)/$(BIN)/python sh tests/soak/delta_sanitizers.sh
	PYTHON=$(CURDIR)/$(BIN)/python sh tests/soak/scan_sanitizers.sh

# man pages of all commands, in build/man
man: $(VENV)/installed
	$(BIN)/python docs/manual.py build/man

# docs/commands.md, from what the commands say of themselves
docs: $(VENV)/installed
	$(BIN)/python docs/commands.py docs/commands.md

# docs/tutorial*.svg: the tutorial, run, as a terminal shows it
record: $(VENV)/installed
	$(BIN)/python docs/record.py docs

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/packstone/*/*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests bench demo -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "Packstone needs Python 3.11 or later: make PYTHON=... (this is %d.%d)" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) install --editable '.[dev,bench]'
	@touch $@
