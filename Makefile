# Every command sets up what it needs: a virtual environment with the exact versions of constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What is compiled once need not be compiled by every process that the tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-long test-pythons lint bench clean

demo: $(READY)  ## A photograph becomes a ten-second video in out/.
	rm -f out/demo.mp4 out/demo.png
	$(BIN)/farm render examples/coffee.jpg --prompt "the camera slowly pans right" --seconds 10 \
		--size 320x192 -o out/demo.mp4

test: $(READY)  ## The whole suite but for what is long by nature.
	$(BIN)/python -m pytest -m "not long"

test-fast: $(READY)  ## What starts no Ray, browser, namespace or official client and is not slow: 90 s on two cores.
	$(BIN)/python -m pytest -m "not (ray or netns or browser or clients or slow or long)"

test-long: $(READY)  ## What is long by nature; pytest ends with 5 while nothing is.
	$(BIN)/python -m pytest -m long --dist worksteal || [ $$? -eq 5 ]

test-pythons: $(READY)  ## The pins and the fast tests with the other Pythons, without torch.
	.ci/pythons

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## The figures of benchmarks/results that need no GPU, measured again.
	for each in coordination/planning coordination/forecast coordination/coordinator_cost coordination/demo_cost \
		joining/speed joining/quality \
		motion_judge tiny_wan_speed serving/watchers serving/doors serving/crowd serving/pages; do \
		$(BIN)/python benchmarks/$$each.py || exit 1; done

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache
