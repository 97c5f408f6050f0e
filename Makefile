# Needs Python 3.11 or newer and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart
CPU_BUILDS := https://download.pytorch.org/whl/cpu

# idle OpenMP threads sleep instead of spinning, which matters where cores are shared
export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help demo quickstart test docs lint clean

help:
	@echo "make demo         see in seconds what a trained model can do"
	@echo "make quickstart   train, sample and evaluate a model of handwritten digits (minutes, no GPU needed)"
	@echo "make test         the whole test suite"
	@echo "make docs         the documentation, into site/"
	@echo "make lint         ruff and mypy: style, formatting, types"
	@echo "make clean        remove what was built; runs/ and $(VENV) stay"
	@echo "CPU=1 make ...    PyTorch without CUDA: on Linux without a GPU, gigabytes less to install"

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Thalweg needs Python 3.11 or newer; name one with PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV) (the first time takes a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -z "$(CPU)" || $(BIN)/python -m pip install -qq --disable-pip-version-check --index-url $(CPU_BUILDS) "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[images,metrics,detect,flows,latent,ssl,objects,onnx,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	@echo "installing the documentation tools"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/thalweg demo --out runs/demo

quickstart: $(VENV)/.installed
	@$(BIN)/thalweg train egc/digits --out $(RUN)
	@$(BIN)/thalweg sample $(RUN) -n 100 --label all --out $(RUN)/digits.png
	@$(BIN)/thalweg evaluate $(RUN)
	@echo
	@echo "pictures and figures:  $(RUN)/report.html"
	@echo "digits on request:     $(RUN)/digits.png"
	@echo "to try next:"
	@echo "  $(BIN)/thalweg sample $(RUN) -n 64 --label 7 --guidance 3 --out sevens.png"
	@echo "  $(BIN)/thalweg train short_run/8gaussians --out runs/8gaussians"
	@echo "  docs/how_to_choose.md"

test: $(VENV)/.installed
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "documentation: site/index.html"

lint: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	@rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .coverage
	@find src tests studies examples -name __pycache__ -type d -prune -exec rm -rf {} +
