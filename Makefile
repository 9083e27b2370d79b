PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := $(VENV)/lowest
DOCS := $(VENV)/docs
# Where pip also looks; uv does not read its settings.
WHEELS = $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
# Loads, trims, tunes, scores, exports and prints: what meets most of the libraries in a minute.
LOWEST_TESTS := tests/test_lowest.py tests/test_docs_snippets.py tests/card/test_card_usage.py tests/methods/test_finetune.py \
  tests/exporting/test_export_parts.py tests/vocab/test_bpe.py tests/vocab/test_unigram.py
# Its score hangs on the tokens that a SentencePiece of that version learns; that tuning works is tried by its brothers.
LOWEST_NOT := tests/methods/test_finetune.py::test_it_learns_and_the_folder_can_be_evaluated[qa]

.PHONY: demo test test-lowest test-faults test-slow lint types docs benchmark clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e '.[offline,dev]'
	touch $@

$(LOWEST)/.installed: pyproject.toml constraints.txt scripts/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python scripts/lowest.py offline export report > $(LOWEST)/requirements.txt
	grep '^torch==' constraints.txt >> $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pip install --quiet --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) $(addprefix --find-links ,$(WHEELS)) \
	  -r $(LOWEST)/requirements.txt 'hypothesis>=6.100' 'pytest>=8' 'pytest-xdist>=3.6' 'seqeval>=1.2.2'
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --no-deps -e .
	touch $@

$(DOCS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(DOCS)/bin/python -m pip install --quiet --quiet -c constraints.txt --group docs
	touch $@

demo: $(VENV)/.installed  ## trim multilingual-e5-small to Romanian and print what was gained and lost
	$(BIN)/polydistill trim --lang ro --overwrite

test: $(VENV)/.installed  ## the whole suite, no network and no real weights
	$(BIN)/python -m pytest -n logical --dist loadfile

test-lowest: $(LOWEST)/.installed  ## a part of the suite with the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest -n logical --dist loadfile $(LOWEST_TESTS) --deselect '$(LOWEST_NOT)'

test-faults: $(VENV)/.installed  ## kills, full disks, damaged files; FAULTS=20 tries twenty times as many
	FAULTS=$(or $(FAULTS),1) $(BIN)/python -m pytest -m faults -n logical tests/faults

test-slow: $(VENV)/.installed  ## the tests on real pretrained weights
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

docs: $(DOCS)/.installed  ## the site in site/, without network; a broken link or a page left out is an error
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

clean:
	rm -rf $(VENV) build site *.egg-info
