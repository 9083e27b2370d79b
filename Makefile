PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-faults test-slow lint types benchmark clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e '.[offline,dev]'
	touch $@

demo: $(VENV)/.installed  ## trim multilingual-e5-small to Romanian and print what was gained and lost
	$(BIN)/polydistill trim --lang ro --overwrite

test: $(VENV)/.installed  ## the whole suite, no network and no real weights
	$(BIN)/python -m pytest -n logical --dist loadfile

test-faults: $(VENV)/.installed  ## kills, full disks, damaged files; FAULTS=20 tries twenty times as many
	FAULTS=$(or $(FAULTS),1) $(BIN)/python -m pytest -m faults -n logical tests/faults

test-slow: $(VENV)/.installed  ## the tests on real pretrained weights
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info
