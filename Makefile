# The few commands of this project; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
UV := $(VENV)/bin/uv
# Nothing is fetched whose hash is not in a lock: wheels only, and our own package is built by what the locks hold.
INSTALL_SELF := $(UV) pip install --quiet --python $(VENV) --no-deps --no-build-isolation --editable .

# What the service needs on Debian, and what its tests need on top: a real guest in QEMU, file systems with and
# without reflinks, real database servers and job boards.
RUN_PACKAGES := python3-venv qemu-utils
TEST_PACKAGES := $(RUN_PACKAGES) python3-dev gcc libc6-dev qemu-system-x86 qemu-guest-agent linux-image-cloud-amd64 \
	busybox-static cpio kmod e2fsprogs xfsprogs btrfs-progs postgresql mariadb-server redis-server redis-sentinel etcd-server \
	haproxy prometheus mount acl curl systemd exfat-fuse exfatprogs sqlite3
LAB_PACKAGES := mariadb-server rabbitmq-server qemu-utils $(if $(CEPH),ceph-mon ceph-mgr ceph-osd ceph-common python3-rbd)

# The clients in TypeScript are made and checked by programs of npm's registry; `ci` takes nothing whose hash is not in
# the lock, and runs no program that comes with a package. Whose certificates are trusted is the machine's own affair.
NPM := NODE_USE_SYSTEM_CA=1 $(VENV)/bin/npm --prefix tests/clients/typescript --ignore-scripts --no-audit --no-fund \
	--no-update-notifier --omit-lockfile-registry-resolved
NPM_LOCK := tests/clients/typescript/package-lock.json

# Compiled for every platform, with the hash of every file; where packages come from is the installer's own affair.
COMPILE := $(UV) pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help install install-run run demo array-lab demo-flashcopy test check storm openstack-packages openstack-lab openstack-test lock clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.test-ready ## install everything that running and testing needs

install-run: $(VENV)/.run-ready ## install what running needs

run: $(VENV)/.run-ready ## serve an example instance from ./var on 127.0.0.1:8790
	@examples/run.sh

demo: $(VENV)/.run-ready ## play snapshot, restore, a restore that fails, retry and rollback; then clean up
	@examples/install-packages.sh e2fsprogs
	@examples/demo.sh

array-lab: $(VENV)/.test-ready ## serve a simulated IBM Storage Virtualize array on 127.0.0.1:7443
	@$(VENV)/bin/python -m tests.lab.storage_virtualize --vdisk volume=67108864 --vdisk data=16777216

demo-flashcopy: $(VENV)/.test-ready ## play the story on a simulated array and show its mappings as they copy
	@examples/demo_flashcopy.sh

test: check ## check everything: style, types, layers, and all tests that need no cloud
	$(VENV)/bin/pytest tests/gate
	$(VENV)/bin/pytest -n 3 --dist worksteal --ignore tests/gate
	STILLFRAME_APART=1 $(VENV)/bin/pytest -n 3 --dist worksteal tests/api/test_operations.py tests/api/test_refusals.py

check: $(VENV)/.test-ready ## check style, types and layers
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

openstack-packages: $(VENV)/.test-ready
	@examples/install-packages.sh $(LAB_PACKAGES)

openstack-lab: openstack-packages ## run a small OpenStack on loopback until Ctrl-C (CEPH=1: with RBD)
	@$(VENV)/bin/python -m tests.lab.openstack $(if $(CEPH),--ceph)

openstack-test: openstack-packages ## run the tests that need that OpenStack (CEPH=1: with RBD)
	STILLFRAME_OPENSTACK_LAB=1 STILLFRAME_OPENSTACK_CEPH=$(CEPH) $(VENV)/bin/pytest tests/openstack -m openstack --durations=5

storm: $(VENV)/.test-ready ## kill and stop everything during 300 operations (STORM_SEED, _BOARD, _DATABASE, _OPERATIONS, _GUESTS)
	$(VENV)/bin/python -W ignore -m tests.storm

lock: $(UV) ## choose the versions of all dependencies anew
	$(COMPILE) --upgrade --all-extras --group dev --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --upgrade --all-extras --group build --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
	echo uv | $(COMPILE) --upgrade --output-file requirements-uv.lock -
	$(NPM) update --package-lock-only

clean: ## remove what the commands above have made
	rm -rf $(VENV) $(dir $(NPM_LOCK))node_modules var dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.run-ready: requirements.lock pyproject.toml | $(UV)
	@examples/install-packages.sh $(RUN_PACKAGES)
	$(UV) pip install --quiet --python $(VENV) --no-build --require-hashes --requirement requirements.lock
	$(INSTALL_SELF)
	@touch $@

$(VENV)/.test-ready: requirements-dev.lock $(NPM_LOCK) pyproject.toml Makefile | $(UV)
	@examples/install-packages.sh $(TEST_PACKAGES)
	$(UV) pip sync --quiet --python $(VENV) --no-build --require-hashes requirements-dev.lock
	$(INSTALL_SELF)
	@$(NPM) ci --loglevel error
	@touch $@ $(VENV)/.run-ready

$(UV): requirements-uv.lock
	@examples/install-packages.sh python3-venv
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.lock
	@touch $@
