# make demo   train the quickstart, compare before and after; results in runs/quickstart
# make compare   SamRef beside PerSAM, RefSAM and others: about an hour on two cores; results in runs/compare
# make test   environment, install, all tests but these three:     make lint   ruff and mypy
# make test-web    the web page in a headless browser      make test-fuzz   hundreds of hostile command lines and uploads
# make test-wheel  the built wheel in a fresh environment: info, segment, track, demo; two to five minutes
# make check  lint and test                        make clean  remove the environment and build output
# make docs   the documentation as a site in build/site; it needs no network to be read
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo compare test test-web test-fuzz test-wheel lint check docs install clean
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Stopped, it goes on where it was; `rm -r runs/quickstart` starts it anew.
# On several GPUs: make demo LAUNCH="--num_processes 2 --multi_gpu" (each takes a batch of its own).
LAUNCH ?= --num_processes 1 --num_cpu_threads_per_process $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 8))')
demo: $(STAMP)
	$(BIN)/accelerate launch $(LAUNCH) train/finetune.py --config configs/quickstart.yaml --resume
	$(BIN)/python eval/demo.py --model runs/quickstart/joint/model --out runs/quickstart/demo

# Stopped, it goes on where it was. A training takes a core; there are six.
TOGETHER ?= $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 6))')
compare: $(STAMP)
	$(BIN)/python eval/compare.py --config configs/compare_tiny.yaml --out runs/compare --together $(TOGETHER)

# A process a core, each with one thread; a file's tests stay together.
JOBS ?= $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 8))')
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m "not web and not wheel"

# Chromium and its driver: installed on Debian as root, else they must be there; without them the tests skip and say so.
test-web: $(STAMP)
	command -v chromium >/dev/null && command -v chromedriver >/dev/null || test "$$(id -u)" != 0 || \
	    ! command -v apt-get >/dev/null || (apt-get update -q && apt-get install -q -y chromium chromium-driver)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_web_browser.py -m web

# How many command lines and uploads are made up; `make test` takes some dozens.
FUZZ ?= 500
test-fuzz: $(STAMP)
	SAM_UNIREF_FUZZ=$(FUZZ) OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
	    tests/test_fuzz_commands.py tests/test_web_uploads.py tests/test_web_server.py

test-wheel: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_wheel.py -m wheel

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typecheck
	$(BIN)/python -m pip install --quiet --no-deps --target build/typecheck .
	cd build && MYPYPATH=typecheck ../$(BIN)/mypy --config-file ../pyproject.toml -p sam_uniref

check: lint test

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache *.egg-info
