# Each target sets up what it needs, also on a fresh Debian 12 machine (as root):
#   make demo   run every example in private namespaces   (ARGS=--keep leaves the pods to look at)
#   make test   run the tests in private namespaces       (ARGS="tests/unit -k rollback")
#   make bench  ADD and DEL against the floor, table and plot in build/bench
#   make bench-k8s  what following 10,000 net-attach-defs costs, table in build/bench (minutes)
#   make bench-cluster  110 pods at once on a real node, with and without metaplugin, table in build/bench (minutes)
#   make control-plane  what a cluster runs, for the tests: found, or built once outside the tree (minutes)
#   make fuzz   every fuzzer for SECONDS=60 (ARGS="frames annotation": these alone)
#   make runtimes  containerd 1.7 and 2, and cnitool, for the tests, built once outside the tree (minutes)
#   make test-sriov  real virtual functions, and more kinds of networks, in an emulated machine (minutes)
#   make outages  ADD in each outage of the API server against all well, a table (ARGS="--rounds 50")
#   make soak   daemon and API server killed at random for ten minutes, then all compared (ARGS="60 --seed 1")
#   make wheel  dist/*.whl with the shim for x86_64 and aarch64 inside
#   make image  dist/metaplugin-image.tar, for `ctr images import`: no container engine is needed
#   make manifests  deploy/metaplugin.yaml from deploy/base, by kustomize, built once (a minute)
#   make lint   ruff, mypy, import-linter
#   make setup  only the set-up

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ARGS ?=
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin

PACKAGES := busybox-static ca-certificates containerd containernetworking-plugins gcc iproute2 iptables \
	iputils-ping libc6-dev mount musl-tools openssl podman procps python3 python3-venv qemu-user runc strace \
	util-linux

CONTROL_PLANE := etcd kube-apiserver kubelet kube-scheduler kube-controller-manager kubectl

SHIM := build/metaplugin-shim
SANITIZED_SHIM := build/metaplugin-shim-sanitized
SHIM_CORPUS := build/metaplugin-shim-corpus
SHIM_FUZZER := build/metaplugin-shim-fuzzer
SHIM_SOURCES := $(wildcard metaplugin/shim/*.c)
SHIM_HEADERS := $(wildcard metaplugin/shim/*.h)
SHIM_FLAGS := -std=gnu11 -Wall -Wextra -Werror
SANITIZED := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all

# The harness puts its own in the place of these, so that a fuzzed shim executes nothing.
comma := ,
FUZZ_SOURCES := $(wildcard tests/fuzz/*.c) $(filter-out %/main.c,$(SHIM_SOURCES))
FUZZ_HEADERS := $(wildcard tests/fuzz/*.h) $(SHIM_HEADERS) metaplugin/shim/main.c
FUZZ_FLAGS := $(SANITIZED) $(addprefix -Wl$(comma)--wrap=,fork execve execl openat readlink dprintf usleep \
	fsync plugin_run realloc free)
FUZZ_PACKAGES := clang-14 libclang-rt-14-dev
ATHERIS := build/atheris
SECONDS ?= 60

.PHONY: help
help:
	@sed -n 's/^#   //p' Makefile

.PHONY: demo
demo: setup
	$(BIN)/metaplugin demo $(ARGS)

.PHONY: test
test: setup $(SANITIZED_SHIM) $(SHIM_CORPUS) wheel image control-plane kustomize runtimes
	tests/run-in-namespaces $(BIN)/python -m pytest $(ARGS)

# Phony: where the programs are is the modules' business, and looking takes them 50 ms.
.PHONY: control-plane guest kustomize manifests runtimes
control-plane: packages
	$(PYTHON) -m tests.controlplane.build $(CONTROL_PLANE)

runtimes: packages
	$(PYTHON) -m tests.runtimes.build

kustomize: packages
	$(PYTHON) -m tests.manifests.build --only

manifests: packages
	$(PYTHON) -m tests.manifests.build

guest: packages
	$(PYTHON) -m tests.guest.build

# No tests/conftest.py there: what it imports takes the emulator ten seconds.
.PHONY: test-sriov
test-sriov: setup guest
	tests/run-in-namespaces $(BIN)/python -m tests.guest $(BIN)/python -m pytest tests/sriov \
		--confcutdir=tests/sriov -p no:cacheprovider --timeout=240 $(ARGS)

.PHONY: bench
bench: setup
	tests/run-in-namespaces $(BIN)/python -m tests.bench $(ARGS)

.PHONY: bench-k8s
bench-k8s: setup control-plane
	tests/run-in-namespaces $(BIN)/python -m tests.bench.k8s $(ARGS)

.PHONY: bench-cluster
bench-cluster: setup control-plane
	tests/run-in-namespaces $(BIN)/python -m tests.bench.cluster $(ARGS)

.PHONY: fuzz
fuzz: setup $(SHIM_FUZZER) $(ATHERIS)/.stamp
	PYTHONPATH=$(ATHERIS) SHIM_FUZZER=$(SHIM_FUZZER) FUZZ_SECONDS=$(SECONDS) \
		tests/run-in-namespaces tests/fuzz/run $(BIN)/python $(ARGS)

.PHONY: outages
outages: setup control-plane
	tests/run-in-namespaces $(BIN)/python -m tests.outage $(ARGS)

.PHONY: soak
soak: setup control-plane
	tests/run-in-namespaces $(BIN)/python -m tests.soak $(ARGS)

.PHONY: wheel
wheel: dist/.stamp

WHEEL_SOURCES := $(shell find metaplugin examples deploy -name '*.[chy]*' -not -name '*.pyc')

# Stamped with the time of its start: what is edited meanwhile isn't in it.
dist/.stamp: $(VENV)/.stamp $(WHEEL_SOURCES) README.md
	rm -rf dist build/wheels
	mkdir dist
	touch dist/.started
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true PIP_CONSTRAINT=constraints.txt \
		$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps -w dist .
	$(BIN)/pip download --quiet --disable-pip-version-check -c constraints.txt -d build/wheels dist/*.whl
	mv dist/.started $@

# What deploy/Containerfile copies, and what the archive is made of.
.PHONY: image image-root
image: dist/metaplugin-image.tar
image-root: build/image.stamp

build/image.stamp: dist/.stamp $(wildcard deploy/*.py) deploy/launcher.c
	$(BIN)/python -m deploy.runtime_tree build/runtime --wheel dist/*.whl --wheels build/wheels
	$(BIN)/python -m deploy.image root build/runtime build/image
	touch $@

dist/metaplugin-image.tar: build/image.stamp deploy/Containerfile
	$(BIN)/python -m deploy.image archive build/image $@

.PHONY: lint
lint: $(VENV)/.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: setup
setup: $(VENV)/.stamp $(SHIM)

# Phony but order-only for its users: looked at each time (20 ms), never a reason to rebuild.
.PHONY: packages
packages:
	@missing=$$(dpkg-query -W -f '$${db:Status-Status}\n' $(PACKAGES) 2>&1 | grep -vx installed || true); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -q update </dev/null; \
	apt-get -q install -y --no-install-recommends -o DPkg::Lock::Timeout=300 $(PACKAGES) </dev/null

# PIP_CONSTRAINT rather than -c alone: it also pins the build backend, which pip installs in isolation.
$(VENV)/.stamp: pyproject.toml constraints.txt | packages
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(SHIM): $(SHIM_SOURCES) $(SHIM_HEADERS) Makefile | packages
	mkdir -p $(@D)
	musl-gcc $(SHIM_FLAGS) -Os -static -ffunction-sections -fdata-sections -Wl,--gc-sections -s \
		-o $@ $(SHIM_SOURCES)

$(SANITIZED_SHIM): $(SHIM_SOURCES) $(SHIM_HEADERS) Makefile | packages
	mkdir -p $(@D)
	gcc $(SHIM_FLAGS) $(SANITIZED) -o $@ $(SHIM_SOURCES)

$(SHIM_CORPUS): $(FUZZ_SOURCES) $(FUZZ_HEADERS) Makefile | packages
	mkdir -p $(@D)
	gcc $(SHIM_FLAGS) $(FUZZ_FLAGS) -o $@ $(FUZZ_SOURCES)

# Packages that nothing but fuzzing needs: 400 MB.
$(SHIM_FUZZER): $(FUZZ_SOURCES) $(FUZZ_HEADERS) Makefile | packages
	$(MAKE) packages PACKAGES="$(FUZZ_PACKAGES)"
	clang-14 $(SHIM_FLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer -DLIBFUZZER -o $@ $(FUZZ_SOURCES)

$(ATHERIS)/.stamp: constraints.txt | $(VENV)/.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade -c constraints.txt \
		--target $(@D) atheris
	touch $@

.PHONY: clean
clean:
	rm -rf build dist $(VENV)
