# Everything sets itself up: packages, the virtual environment, the C extension.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
PYTHON := $(VENV)/bin/python
PACKAGES := fuse3 libfuse3-dev pkg-config gcc libc6-dev python3-dev python3-venv attr e2fsprogs util-linux
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help demo test lint bench bench-quick clean install setup

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.make/apt:
	@mkdir -p .make
	# dpkg-query fails when it does not know one of the packages: that is an answer, not an error.
	present=$$({ dpkg-query -W -f='$${Status} $${Package}\n' $(PACKAGES) 2>/dev/null || true; } | awk '$$3 == "installed" {print $$4}' | sort)
	wanted=$$(printf '%s\n' $(PACKAGES) | sort)
	missing=$$(comm -23 <(echo "$$wanted") <(echo "$$present"))
	if [ -n "$$missing" ]; then
		echo "installing: $$missing"
		$(SUDO) apt-get update -qq
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >/dev/null
	fi
	touch $@

# The first Python that is new enough and can make environments. The system's own comes first: it
# has the headers for the extension, and other users may run it too.
$(PYTHON): | .make/apt
	@for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
		if command -v $$candidate >/dev/null && $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			$$candidate -m venv $(VENV)
			exit 0
		fi
	done
	echo "Python >= 3.11 is needed: apt-get install python3" >&2
	exit 1

.make/venv: pyproject.toml setup.py native/chunker.c | $(PYTHON)
	@$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --editable '.[fuse,test,lint]'
	touch $@

setup: .make/apt .make/venv  ## Install what is needed; done by the other targets by themselves

demo: setup  ## Publish, serve, mount, read lazily and update a repository, all on this machine
	@$(PYTHON) -m demo

test: setup  ## Run all tests
	@$(PYTHON) -m pytest tests

lint: setup  ## Check style and types
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: setup  ## Measure beside the local file system, and cvmfs2 if LAZYFS_BENCH_CVMFS2 names one
	@$(PYTHON) -m benchmarks

bench-quick: setup  ## The same with less data
	@$(PYTHON) -m benchmarks --quick

install: setup  ## Let mount(8) find the helper
	# The second name is what mount(8) looks for when it is asked to remount: the kernel shows the
	# type as fuse.lazyfs.
	@for name in mount.lazyfs mount.fuse.lazyfs; do
		$(SUDO) ln -sf "$$(realpath $(VENV)/bin/mount.lazyfs)" /sbin/$$name
	done

clean:  ## Remove what was built
	@rm -rf $(VENV) .make build *.egg-info lazyfs/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
