# `make demo` and `make test` set up all they need on a bare Debian 12: system packages (root or sudo), a virtual
# environment in .venv, the package itself. Nothing outside .venv and the system packages is changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# One more than cores: a fifth of the time a test waits for a server.
WORKERS ?= $(shell expr $$(nproc) + 1)

DEMO_PACKAGES := python3-venv xrootd-server xrootd-client
TEST_PACKAGES := $(DEMO_PACKAGES) postgresql mariadb-server openssl bzip2 xz-utils \
	nginx-light openssh-server openssh-client xrootd-server-plugins python3-gfal2 gfal2-plugin-http gfal2-plugin-xrootd b3sum \
	activemq default-jre-headless prometheus

# An engine is started only where none answers, and a base image made only where none can be pulled.
DOCKER_PACKAGES := docker.io docker-compose debootstrap iptables

.PHONY: help moto demo test test-docker lint format bench soak upstream clean

help:
	@echo "make demo [PRODUCT=FILE]  a whole federation on this machine, told step by step"
	@echo "make test [ARGS=…]        every test, against real Rucio, PostgreSQL and XRootD"
	@echo "make test-docker          build the images, run a federation of them"
	@echo "make lint                 ruff and mypy"
	@echo "make bench                ratios against the named peers, as a table"
	@echo "make soak [SEEDS=1000]    kill the recorder at random seams, many times"
	@echo "make upstream RUCIO_SOURCE=DIR  Rucio's own server tests, without and with us"

demo: $(VENV)/.installed
	@scripts/system-packages $(DEMO_PACKAGES)
	@$(BIN)/rucio-trace demo $(if $(PRODUCT),--product "$(PRODUCT)")

test: $(VENV)/.installed moto
	@scripts/system-packages $(TEST_PACKAGES)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-docker: $(VENV)/.installed
	@docker info >/dev/null 2>&1 || scripts/system-packages $(DOCKER_PACKAGES)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test-docker]"
	$(BIN)/python -m pytest --timeout 1500 tests/docker $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed moto
	@scripts/system-packages $(TEST_PACKAGES)
	@$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.installed
	@scripts/system-packages $(TEST_PACKAGES)
	RUCIO_TRACE_SOAK_SEEDS=$(or $(SEEDS),1000) $(BIN)/python -m pytest -k random_seams --timeout 0 tests/integration

upstream: $(VENV)/.installed
	@scripts/system-packages $(TEST_PACKAGES)
	@test -n "$(RUCIO_SOURCE)" || { echo "RUCIO_SOURCE=DIR: a checkout of Rucio, for its tests" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[upstream]"
	$(BIN)/python tests/upstream/compare.py "$(RUCIO_SOURCE)"

# An S3 server for the tests; its pins and Rucio's exclude each other.
moto: $(VENV)/moto/.installed

$(VENV)/moto/.installed: constraints-moto.txt | $(VENV)/.installed
	@echo "Installing moto into $(VENV)/moto …"
	@test -x $(VENV)/moto/bin/python || $(BIN)/python -m venv $(VENV)/moto
	@$(VENV)/moto/bin/python -m pip install --quiet --disable-pip-version-check -r constraints-moto.txt
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	@scripts/system-packages python3-venv
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the Python packages into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
