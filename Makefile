# Seglens: every target does its own set-up in .venv. Needs Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
DATA ?= ../shared/data
RUN ?= runs/pets-unet

.DEFAULT_GOAL := help
.PHONY: help demo test test-foreign test-pages check docs bench real fuzz package oldest newest clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch and torchvision are asked for together, so that pip takes a matching pair.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Seglens needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another with: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,check,docs]'
	touch $@

$(VENV)/.benched: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	touch $@

demo: $(VENV)/.installed  ## train an honest and a cheating model, explain, judge, report (DEMO=folder)
	$(BIN)/seglens demo --out $(DEMO) --force

# Two processes of one thread each: tests are many small computations, which threads don't share well.
test: $(VENV)/.tested  ## run all tests but those of test-foreign and test-pages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not foreign and not pages'

test-pages: $(VENV)/.tested  ## run the pages of the documentation and the notebooks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m pages

# nnU-Net wants a timm that this torch warns of: its packages, and those of fastai, lie beside the environment and
# changes nothing in it.
$(VENV)/.foreign: $(VENV)/.tested
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/foreign 'nnunetv2>=2.8' 'dynamic-network-architectures>=0.4.4' acvl_utils batchgenerators batchgeneratorsv2 blosc2 connected-components-3d future graphviz imagecodecs msgpack ndindex numexpr seaborn yacs 'fastai>=2.8' 'plum-dispatch>=2.5,<2.10' apswutils fastcore fastdownload fastlite fastprogress fasttransform itsdangerous python-fasthtml
	touch $@

test-foreign: $(VENV)/.foreign  ## run the tests that hold networks of other libraries against these
	OMP_NUM_THREADS=1 PYTHONPATH=$(VENV)/foreign $(BIN)/python -m pytest -n 2 -m foreign

check: $(VENV)/.tested  ## format, lint, types, and texts that are read once
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/basedpyright --verifytypes seglens --ignoreexternal  # asks the first python of PATH
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/docs/test_readability.py

docs: $(VENV)/.installed  ## build the documentation into site/, which opens from disk
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "The documentation is in site/index.html"

bench: $(VENV)/.benched  ## speed and identities against the peers, ratios in one run
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.score_cam
	$(BIN)/python -m benchmarks.sheet
	$(BIN)/python -m benchmarks.growth --dry-run-check --quick
	if [ -d $(RUN) ] && [ -d $(DATA) ]; then $(BIN)/python -m benchmarks.integrated_gradients --run $(RUN) --data $(DATA)/oxford-iiit-pet --split test; else echo "Integrated Gradients: not run, it needs a trained run (RUN=$(RUN)) and its data (DATA=$(DATA))"; fi

real: $(VENV)/.benched  ## train and explain on the four real sets (DATA=folder)
	$(BIN)/python -m benchmarks.real --data $(DATA) --runs runs

fuzz: $(VENV)/.tested  ## give every reader a hundred times as many damaged files as the tests do
	OMP_NUM_THREADS=1 SEGLENS_FUZZ=100 $(BIN)/python -m pytest -n 2 tests/test_fuzz.py

# The wheel goes into an empty environment twice: alone, and with what users add to it.
package: $(VENV)/.tested  ## build wheel, sdist and bill of materials in dist/, and try the wheel in an empty environment
	rm -rf dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[release]'
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv dist/.try
	for extras in '' '[app,notebook]'; do dist/.try/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$$(ls dist/*.whl)$$extras" || exit 1; dist/.try/bin/seglens --version || exit 1; dist/.try/bin/python -c 'import seglens; print(seglens.__file__)' || exit 1; done
	$(BIN)/cyclonedx-py environment dist/.try/bin/python --of JSON -o dist/sbom.json
	rm -rf dist/.try

# uv finds the oldest versions that pyproject.toml admits; torch and torchvision of them are a pair. Old
# libraries use what newer ones of today call deprecated; Python shows users no such warnings. (Options in
# PYTEST_ADDOPTS reach tests that run tests.)
oldest:  ## run the tests with the oldest versions that are admitted (.venv-oldest)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/uv pip compile --quiet --python .venv-oldest/bin/python --resolution lowest-direct --no-emit-index-url --extra test --extra docs pyproject.toml --output-file .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --requirement .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	OMP_NUM_THREADS=1 PYTEST_ADDOPTS='-W ignore::DeprecationWarning' .venv-oldest/bin/python -m pytest -n 2

# timm 1.0 calls what torch 2.14 says is deprecated, as it is imported.
newest:  ## run the tests with the newest versions that are admitted (.venv-newest)
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[test,docs]'
	OMP_NUM_THREADS=1 PYTHONWARNINGS='ignore:`torch.jit.interface` is deprecated:FutureWarning' PYTEST_ADDOPTS='-W "ignore:`torch.jit.interface` is deprecated:FutureWarning"' .venv-newest/bin/python -m pytest -n 2

clean:  ## remove the environment and caches
	rm -rf $(VENV) .venv-oldest .venv-newest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
