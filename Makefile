# Everything a developer or an operator of a local cluster does here, one word each.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.made-from-constraints
# Twice quiet: pip says what went wrong and nothing else.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

.PHONY: help setup up down test cluster-test check format api lock sim-long fuzz-long load-long net-long clean
.DEFAULT_GOAL := help

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv with Skep and its tools, as pinned in constraints.txt

# PySyncObj comes as source only. What builds it, and Skep, is installed first and is pinned as well: without
# isolation pip takes no newer setuptools of its own choice.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -m ensurepip --version >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing python3-venv"; \
	    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y python3-venv; } >/dev/null; \
	  else \
	    echo "Python's venv module is missing; run: sudo apt-get install python3-venv" >&2; exit 1; \
	  fi; }
	@$(BIN)/python -c '' 2>/dev/null || { echo "making .venv"; $(PYTHON) -m venv --clear .venv; }
	@echo "installing what constraints.txt pins"
	@awk '/^[a-z]/ { wanted = /^(packaging|setuptools|wheel)==/ } wanted' constraints.txt | $(PIP) install --require-hashes -r /dev/stdin
	@$(PIP) install --require-hashes --no-build-isolation -r constraints.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

up: setup  ## start a local cluster and deploy the example; ARGS="..." goes to `skep up`
	@$(BIN)/skep up examples/timecheck.yaml $(ARGS)

down: setup  ## stop the local cluster and remove what it left
	@$(BIN)/skep down $(ARGS)

test: setup  ## run the tests; ARGS="..." goes to pytest
	@$(BIN)/python -m pytest $(ARGS)

cluster-test: setup  ## as root: tests on a cluster of containers (docker-compose.test.yml); ARGS="..." goes to pytest
	@deploy/test-cluster run $(ARGS)

check: setup  ## lint, formatting, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict -p skep -p tests -p bench
	@$(BIN)/lint-imports --no-logo

format: setup  ## format the code and apply the linter's safe fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

api: setup  ## generate skep/api/*_pb2.py from proto/skep/v1/*.proto
	@$(BIN)/python -m grpc_tools.protoc --proto_path=skep/api=proto/skep/v1 --python_out=. --pyi_out=. proto/skep/v1/*.proto

lock: setup  ## pin what pyproject.toml asks for; ARGS=--upgrade takes the newest versions
	@$(PIP) install uv
	@cp constraints.txt constraints.new
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header \
	  --all-extras --output-file constraints.new $(ARGS) pyproject.toml
	@{ echo '# Every package that Skep and its tools need, pinned by hash. Made by `make lock`; do not edit.'; \
	  cat constraints.new; } > constraints.txt
	@rm constraints.new

sim-long: setup  ## the simulator over many more seeds than `make test` has time for
	@$(BIN)/python -m tests.sim.long $(ARGS)

fuzz-long: setup  ## the property tests with new and many more examples
	@SKEP_FUZZ=long $(BIN)/python -m pytest tests/unit $(ARGS)

load-long: setup  ## updates and drained nodes under load, at least 10,000 requests each
	@SKEP_LONG=1 $(BIN)/python -m pytest -s tests/e2e/test_no_lost_request.py $(ARGS)

net-long: setup  ## networks: 200 changes under load, 20 idle minutes, 1 GiB; in the kernel's plane as root
	@SKEP_NET_LONG=1 $(BIN)/python -m pytest -s tests/e2e/test_networks_ingress.py tests/e2e/test_networks_load.py $(ARGS)

clean:  ## remove .venv and what the tools leave behind
	@rm -rf .venv build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
