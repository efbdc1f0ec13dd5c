# Everything sets itself up: packages, the virtual environment, the C extension.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
PYTHON := $(VENV)/bin/python
PACKAGES := fuse3 libfuse3-dev pkg-config gcc libc6-dev python3-dev python3-venv attr e2fsprogs util-linux
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Real object storage for the tests, beside moto's; its binary is built once for each user.
MINIO := github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
MINIO_BIN := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lazyfs/bin/minio-$(lastword $(subst -, ,$(MINIO)))
MINIO_SECONDS := 300

.PHONY: help demo test minio lint bench bench-quick clean install setup

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
	$(PYTHON) -m pip install --quiet --editable '.[fuse,s3,test,lint]'
	touch $@

setup: .make/apt .make/venv  ## Install what is needed; done by the other targets by themselves

demo: setup  ## Publish, serve, mount, read lazily and update a repository, all on this machine
	@$(PYTHON) -m demo

test: setup minio  ## Run all tests
	@$(PYTHON) -m pytest tests -n auto --dist loadfile

# Whatever goes wrong here is no failure: the tests run with moto's server then.
minio:  ## Build the S3 server MinIO for the tests, if Go is here; done by 'make test' by itself
	@[ -z "$${LAZYFS_MINIO:-}" ] && [ ! -x $(MINIO_BIN) ] && ! command -v minio >/dev/null || exit 0
	command -v go >/dev/null || { echo "no Go here to build MinIO with: S3 is tested with moto alone"; exit 0; }
	echo "building MinIO for the tests of S3, once for each user: two to four minutes"
	build=$$(mktemp -d)
	trap 'rm -rf "$$build"' EXIT
	if CGO_ENABLED=0 GOBIN="$$build" timeout $(MINIO_SECONDS) go install -ldflags='-s -w' $(MINIO) >"$$build/log" 2>&1 &&
		install -D "$$build/minio" $(dir $(MINIO_BIN)).minio.$$$$ && mv $(dir $(MINIO_BIN)).minio.$$$$ $(MINIO_BIN); then
		exit 0
	fi
	tail -n 3 "$$build/log"
	echo "MinIO was not built: S3 is tested with moto alone"

lint: setup  ## Check style and types
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: setup  ## Measure beside the local file system, and cvmfs2 if LAZYFS_BENCH_CVMFS2 names one
	@$(PYTHON) -m benchmarks
	$(PYTHON) -m benchmarks.publishing

bench-quick: setup  ## The same with less data
	@$(PYTHON) -m benchmarks --quick
	$(PYTHON) -m benchmarks.publishing --quick

install: setup  ## Let mount(8) find the helper
	# The second name is what mount(8) looks for when it is asked to remount: the kernel shows the
	# type as fuse.lazyfs.
	@for name in mount.lazyfs mount.fuse.lazyfs; do
		$(SUDO) ln -sf "$$(realpath $(VENV)/bin/mount.lazyfs)" /sbin/$$name
	done

clean:  ## Remove what was built
	@rm -rf $(VENV) .make build *.egg-info lazyfs/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
