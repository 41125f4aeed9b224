# Two commands on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-ci.txt

.PHONY: demo test test-all fuzz lint clean

demo: $(VENV)/.run  ## lift the demo video with the shipped lifter; results in demo/
	$(BIN)/poseda-run --demo --persons 2 --out demo/people --overwrite

test: $(VENV)/.dev lint  ## what CI runs; under 10 minutes on two cores
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: $(VENV)/.dev lint  ## slow tests too
	$(BIN)/python -m pytest -m "not gpu"

fuzz: $(VENV)/.dev  ## 100,000 damaged files into every reader, new ones each time; some hours on one core
	PYTHONPATH=tests $(BIN)/python -m fuzz 100000

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.run: pyproject.toml constraints-ci.txt
	$(call install,cpu$(comma)video)

$(VENV)/.dev: pyproject.toml constraints-ci.txt
	$(call install,cpu$(comma)video$(comma)live$(comma)formats$(comma)viz$(comma)train$(comma)export$(comma)rtx$(comma)dev)
	touch $(VENV)/.run

comma := ,
# opencv-python needs libGL and friends, which most servers lack; the headless build is the same library without windows.
# Both write into one folder: with either gone the other is broken, so both go before one comes.
define install
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing poseda-deploy[$(1)] into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[$(1)]'
	$(BIN)/python -c "import cv2" 2>/dev/null && ! $(BIN)/python -m pip show --quiet opencv-python-headless 2>/dev/null || { \
	  $(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-python-headless; $(PIP) opencv-python-headless; }
	touch $@
endef

clean:
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
