# make book   set up, then build the book        make test   set up, then run all tests
# make lab    open the notebooks in JupyterLab   make bench  measure how fast training is here
# make clean  delete what was built (never the trainings in results/)
.PHONY: book test nbval-even nbval-odd test-training test-pages lab bench clean
.DEFAULT_GOAL := book

PYTHON ?= python3
BIN := .venv/bin
# the store of what the notebooks train at smoke scale
REHEARSED := $(CURDIR)/_build/nbval
unexport PYTHONDONTWRITEBYTECODE  # a module is compiled once, when it is first imported

book: .venv/ready
	$(BIN)/python -m lottery_nb book

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	rm -rf _build/nbval _build/html _build/.doctrees
	$(MAKE) --jobs 2 --output-sync nbval-even nbval-odd
	env -u LOTTERY_RESULTS -u LOTTERY_DATA -u LOTTERY_MISSING LOTTERY_STORE=$(REHEARSED) $(BIN)/python -m lottery_nb book
	$(MAKE) --jobs 2 --output-sync test-training test-pages

nbval-even: NOTEBOOKS = notebooks/fig?[02468]_*.ipynb notebooks/chapter*.ipynb
nbval-odd: NOTEBOOKS = notebooks/fig?[13579]_*.ipynb notebooks/study_*.ipynb notebooks/playground.ipynb
nbval-even nbval-odd:
	OMP_NUM_THREADS=1 LOTTERY_STORE=$(REHEARSED) LOTTERY_RESULTS= $(BIN)/python -m pytest --nbval-lax --nbval-current-env -p no:cacheprovider $(NOTEBOOKS)

test-training: TESTS = tests --ignore tests/analysis --ignore tests/site
test-pages: TESTS = tests/analysis tests/site
test-training test-pages:
	OMP_NUM_THREADS=1 LOTTERY_BUILT=$(CURDIR)/_build/html LOTTERY_REHEARSED=$(REHEARSED) $(BIN)/python -m pytest -o cache_dir=_build/$@ $(TESTS)

bench: .venv/ready
	$(BIN)/python -m lottery_nb bench

lab: .venv/ready
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

.venv/ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "Python 3.11 or 3.12 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf _build book/figures
