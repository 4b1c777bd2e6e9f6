# Every target sets the environment up first; that takes a second once it is there.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
# Passed on to the targets: DATA (demo), ARGS (demo, test), TORCH, REUSE_TORCH=0,
# REBUILD_MMCV=1 (set-up).
SETUP_OPTIONS := $(if $(TORCH),--torch '$(TORCH)') \
	$(if $(filter 0,$(REUSE_TORCH)),--no-reuse-torch) \
	$(if $(REBUILD_MMCV),--rebuild-mmcv)
TORCH_ONLY := $(wildcard daal_mmdet/kalman.py daal_mmdet/nuclear_norm.py \
	daal_mmdet/covariance_bank.py daal_mmdet/cuda_replay.py)

.PHONY: help setup demo test lint clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo              train RetinaNet with FocalLoss and with DAALLoss, compare them'
	@echo 'make demo DATA=FOLDER  the same on a data set of yours in COCO format'
	@echo "make test              run the tests (ARGS='-k kalman' selects some)"
	@echo 'make lint              ruff on all files, mypy on the torch-only ones'
	@echo 'make setup             make .venv only; the targets above do so themselves'
	@echo '    PYTHON=python3.11  the Python >= 3.10 to make it with (default: python3)'
	@echo '    TORCH=2.12.0       the PyTorch to use (default: one that is there, else 2.13.0)'
	@echo '    REUSE_TORCH=0      install PyTorch even if the Python has one'
	@echo '    REBUILD_MMCV=1     compile mmcv again'
	@echo 'make clean             remove .venv, caches and build folders; keeps data and work_dirs'

setup:
	@command -v '$(PYTHON)' >/dev/null || { \
	  echo 'There is no $(PYTHON). Name a Python >= 3.10: make PYTHON=/path/to/python3.11'; \
	  exit 1; }
	@'$(PYTHON)' tools/setup_env.py $(SETUP_OPTIONS)

demo: setup
	$(VENV_PYTHON) tools/demo.py $(if $(DATA),--data '$(DATA)') $(ARGS)

test: setup
	$(VENV_PYTHON) -m pytest $(ARGS)

lint: setup
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy $(TORCH_ONLY)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
