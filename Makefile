# make run    sets everything up and serves the embedded demo model on http://127.0.0.1:8000
# make test   sets everything up and runs every test, on at most four cores
# make quick  the same without the slow tests, in under three minutes on two cores
# make fuzz   sends a server hostile requests: 12,000 raw ones, and what schemathesis makes of its OpenAPI document
# make check  formatting, lint, types and import contracts, two at a time
# make locks    resolves the packages of the images anew, with hashes, into docker/locks/; needs uv
# make sbom     writes what is in each image as CycloneDX, into dist/; needs uv
# make screenshots  takes the pictures of the README anew; needs Chromium
# make faults       every fault of the engine twenty times
# make reproduce    the paper's comparison, three seeds each, in about an hour; writes docs/reproduction.md
# make benchmarks   measures on this machine's GPU, in 20 minutes, and writes docs/benchmarks.md
#
# PYTHON     the interpreter to build .venv with (3.11 or newer)
# PIP_ARGS   options for pip, for example torch's CPU wheels:
#            make run PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# JOBS       processes for the tests; 0 runs them in one process, as `.venv/bin/pytest` does
# TORCH_CPU  where `make locks` finds torch for a CPU
# PYTEST_ARGS  options for pytest, for example -x or --durations=25

PYTHON ?= python3
PIP_ARGS ?=
JOBS ?= auto
PYTEST_ARGS ?=
TORCH_CPU ?= --torch-backend cpu
BIN := .venv/bin
# A file's tests stay together, because they share servers; files with slow tests begin first (tests/conftest.py).
PARALLEL := $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: setup run test quick fuzz check style mypy pyright page demo reproduce benchmarks faults locks sbom screenshots clean

run: .venv/run.done
	$(BIN)/panacea serve

test: .venv/dev.done
	$(PARALLEL) $(PYTEST_ARGS)

quick: .venv/dev.done
	$(PARALLEL) -m "not slow" $(PYTEST_ARGS)

fuzz: .venv/dev.done
	$(BIN)/python -m tests.fuzz

check: .venv/dev.done
	@$(MAKE) --no-print-directory --jobs 2 style mypy pyright page

style: .venv/dev.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

mypy: .venv/dev.done
	$(BIN)/mypy

pyright: .venv/dev.done
	$(BIN)/pyright

page:
	@if command -v npm >/dev/null; then \
	  cd clients/web && npm install --silent --no-audit --no-fund --no-package-lock && npm run --silent check; \
	else echo "The page's types and format are not checked: npm is not installed."; fi

setup: .venv/dev.done

demo: .venv/dev.done
	$(BIN)/panacea train demo

reproduce: .venv/dev.done
	$(BIN)/python -m panacea_lab.reproduce

faults: .venv/dev.done
	PANACEA_FAULTS=20 $(BIN)/pytest --timeout 1800 -rP --show-capture stdout tests/faults

benchmarks: .venv/dev.done
	$(BIN)/python -m panacea_lab.bench.benchmark_suite

# The versions are those of constraints.txt. The hashes are those of all files of a version, except torch for a CPU.
LOCK := uv pip compile --quiet --no-annotate --generate-hashes --constraint constraints.txt --python-version 3.11 \
  --python-platform x86_64-manylinux_2_28 --custom-compile-command "make locks"

locks:
	echo hatchling | $(LOCK) --output-file docker/locks/build.txt -
	$(LOCK) --output-file docker/locks/cuda.txt pyproject.toml
	$(LOCK) $(TORCH_CPU) --no-emit-package triton --output-file docker/locks/cpu.txt pyproject.toml

sbom:
	@mkdir -p dist
	for image in cpu cuda; do uvx --from cyclonedx-bom cyclonedx-py requirements docker/locks/$$image.txt \
	  --pyproject pyproject.toml --output-reproducible --output-file dist/panacea-$$image.cdx.json || exit 1; done

screenshots: .venv/dev.done
	$(BIN)/python -m tests.web.screenshots

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Panacea needs Python 3.11 or newer; set PYTHON=python3.12, say."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.done: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) --editable .
	@touch $@

.venv/dev.done: .venv/bin/python pyproject.toml clients/python/pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) --editable '.[dev]' \
	  --editable './clients/python[cli]'
	@touch $@ .venv/run.done
