# make book   set up, then build the book        make test   set up, then run all tests
# make lab    open the notebooks in JupyterLab   make bench  measure how fast training is here
# make clean  delete what was built (never the trainings in results/)
.PHONY: book test nbval-even nbval-odd test-rooms test-site lab bench clean
.DEFAULT_GOAL := book

PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # a module is compiled once, when it is first imported

book: .venv/ready
	$(BIN)/python -m lottery_nb book

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	rm -rf _build/nbval
	$(MAKE) --jobs 2 --output-sync nbval-even nbval-odd
	$(MAKE) --jobs 2 --output-sync test-rooms test-site

nbval-even: NOTEBOOKS = notebooks/fig?[02468]_*.ipynb notebooks/chapter*.ipynb
nbval-odd: NOTEBOOKS = notebooks/fig?[13579]_*.ipynb notebooks/study_*.ipynb notebooks/playground.ipynb
nbval-even nbval-odd:
	OMP_NUM_THREADS=1 LOTTERY_STORE=$(CURDIR)/_build/nbval LOTTERY_RESULTS= $(BIN)/python -m pytest --nbval-lax --nbval-current-env -p no:cacheprovider $(NOTEBOOKS)

test-rooms: TESTS = tests --ignore tests/site
test-site: TESTS = tests/site
test-rooms test-site:
	OMP_NUM_THREADS=1 LOTTERY_REHEARSED=$(CURDIR)/_build/nbval $(BIN)/python -m pytest -o cache_dir=_build/$@ $(TESTS)

bench: .venv/ready
	$(BIN)/python -m lottery_nb bench

lab: .venv/ready
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

.venv/ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "Python 3.11 or 3.12 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf _build book/figures
