# make demo      all seven steps on a small sample release, served on this machine
# make test      the tests that need only Python and a shell
# make lint      ruff and mypy
# make system    the tests that need root or Debian packages (make system-packages installs them)
# make interop   the tests with heavy readers, in an environment of their own (several GB)
# make fresh     make demo and make test on bare Debian systems (root, debootstrap)
# make .venv-img2dataset   img2dataset in an environment of its own, for benchmarks.download
# make bench     all benchmarks, to benchmarks/RESULTS.md and the README (make bench-packages installs nginx)
# make clean     remove everything that these targets make
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_PACKAGES := nginx-light libnginx-mod-http-echo
SYSTEM_PACKAGES := busybox chromium curl dash fonts-dejavu-core iproute2 shellcheck wget

INTEROP := .venv-interop
# Taken without what they depend on: FiftyOne's database server, and the Object Detection API's TensorFlow 2.8.
INTEROP_ALONE := fiftyone==1.22.1 fiftyone-brain==0.25.* tf-models-research-object-detection==2.8.0.post1

REPORT_FLAGS := --report_path demo/report.html --class_description_path demo/data/classes

.PHONY: help demo test lint system interop fresh bench system-packages bench-packages clean

help:
	@sed -n 's/^# make/make/p' Makefile

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/installed-dev: requirements.txt requirements-cluster.txt requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@ $(VENV)/installed

$(VENV)/installed-bench: requirements-bench.txt | $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --requirement requirements-bench.txt
	touch $@

demo: $(VENV)/installed
	$(BIN)/python -m sample.make --directory demo/sample
	MASKS=1 DATA=demo/data OUT=demo/dataset NUM_SHARDS=2 RECORD_FLAGS="$(REPORT_FLAGS)" \
		$(BIN)/python -m sample.serve demo/sample -- sh make_dataset.sh

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m 'not system and not interop' --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

system: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m system

$(INTEROP)/installed: requirements.txt requirements-interop.txt | $(VENV)/bin/python
	$(BIN)/python -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet --requirement requirements-interop.txt
	$(INTEROP)/bin/python -m pip install --quiet --no-deps $(INTEROP_ALONE)
	touch $@

interop: $(INTEROP)/installed
	$(INTEROP)/bin/python -m pytest -m interop tests/test_interop.py tests/test_training_docs.py tests/test_google_store.py

system-packages: PACKAGES = $(SYSTEM_PACKAGES)
bench-packages: PACKAGES = $(BENCH_PACKAGES)
system-packages bench-packages: # need root
	apt-get update --quiet --quiet
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends $(PACKAGES)

fresh:
	sh tests/fresh.sh bookworm trixie

bench: $(VENV)/installed-bench .venv-img2dataset
	$(BIN)/python -m benchmarks

.venv-img2dataset:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet img2dataset==1.47.0 || (rm -rf $@; exit 1)

clean:
	rm -rf $(VENV) .venv-* demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
