# One command each. `make demo` and `make test` need only Python 3.11+, git and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Taken first, so that a CPU machine gets a CPU build where the index has one. With a GPU: make demo TORCH=torch
TORCH  ?= torch==2.13.0
# Processes that run the tests, each of 1 to 2 GB; 0 for one that a debugger can be attached to.
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo dev tools test slow lint bench results clean

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[models,dev]"
	touch $@

dev: $(VENV)/installed

demo: dev ## install, then run the main job on the embedded default
	$(BIN)/ledger run examples/tiny-moe/recipe.yaml

# Tests drive Debian's chromium and OpenSSH's ssh-keygen and ssh-agent. What is missing is installed where that may be done; else those tests fail.
tools:
	-@{ test -x /usr/bin/chromium && command -v ssh-keygen && command -v ssh-agent; } >/dev/null || ! command -v apt-get >/dev/null || test "$$(id -u)" != 0 || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium openssh-client; } >/dev/null

test: dev tools ## install, then pass the tests
	$(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist worksteal store ledger stages cli tests

slow: dev ## the proofs that take minutes
	$(BIN)/python -m pytest -q -m slow tests

lint: dev
	$(BIN)/ruff check store ledger stages cli tests bench examples
	$(BIN)/ruff format --check store ledger stages cli tests bench examples
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: dev ## every number of the README, as ratios against named peers
	for script in $(filter-out bench/machine.py,$(wildcard bench/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

WORLDS := examples/many-worlds
results: dev ## the three jobs of Many-Worlds, and docs/results/many-worlds.md out of what they attest; what is done already is not done again
	$(BIN)/python $(WORLDS)/make_corpus.py
	$(BIN)/python $(WORLDS)/make_calibration.py
	for recipe in recipe baselines bridges; do $(BIN)/ledger run $(WORLDS)/$$recipe.yaml || exit 1; done
	$(BIN)/python $(WORLDS)/make_results.py

clean:
	rm -rf $(VENV) .ledger
