# make help lists the targets. Python, make and a package index are all that a fresh machine needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Two processes, each with whole files of tests, so that what a file sets up is set up once.
TESTS  := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile
# Tokens are found by their form. Hashes look random too, so detectors by randomness and by variable name would only be noise.
SECRETS := -p .ci/hugging_face.py --disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString \
	--disable-plugin KeywordDetector --exclude-secrets '^(secret|password)$$'

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all bench bench-full coverage faults lint format audit constraints clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## build .venv from the pinned versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("retain needs Python 3.11 to 3.13, this is " + sys.version.split()[0] if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY) ## run studies/lab.yaml end to end (7 to 13 minutes on two cores, seconds the second time)
	@$(BIN)/retain run studies/lab.yaml

test: $(READY) ## the test suite without the slow part
	@$(TESTS) -m "not slow and not gpu"

test-all: $(READY) ## every test that needs no accelerator
	@$(TESTS) -m "not gpu"

bench: $(READY) ## timings as ratios, medians of interleaved pairs, and what orchestration costs an arm
	@$(BIN)/python -m benchmarks.bench
	@$(BIN)/python -m benchmarks.orchestration pool
	@$(BIN)/python -m benchmarks.orchestration inline

bench-full: $(READY) ## the whole demo against a plain script, once (over half an hour)
	@$(BIN)/python -m benchmarks.full

coverage: $(READY) ## how often every interval holds the truth, in simulated worlds (about ten minutes on two cores)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.coverage

faults: $(READY) ## fuzz what is read; kill trainings at random points, run them again, count what is lost (about 20 minutes on two cores)
	@RETAIN_FUZZ_CASES=10000 $(BIN)/pytest tests/unit/test_fuzz.py --timeout=3600
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.faults.kill --points 20 --seed 0

lint: $(READY) ## ruff, the strict type checker, and a search for secrets that were committed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --diff .
	@$(BIN)/mypy
	@git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook $(SECRETS)

format: $(READY) ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

audit: $(READY) ## known vulnerabilities of the pinned packages
	@$(BIN)/python .ci/audit.py

constraints: ## refresh constraints.txt from the newest versions that pyproject.toml allows
	rm -rf .venv-fresh && $(PYTHON) -m venv .venv-fresh
	.venv-fresh/bin/pip install --quiet --upgrade pip
	.venv-fresh/bin/pip install --quiet 'torch==2.13.0' '.[dev]'
	.venv-fresh/bin/pip freeze --exclude retain | sed 's/+cpu//' > constraints.txt
	rm -rf .venv-fresh

clean: ## remove the environment (results stay)
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis
