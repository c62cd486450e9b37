# Every command sets up what it needs: a virtual environment with the exact versions of constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench clean

demo: $(READY)  ## A photograph becomes a ten-second video in out/.
	$(BIN)/farm render examples/coffee.jpg --prompt "the camera slowly pans right" --seconds 10 \
		--size 192x128 --overlap 2 -o out/demo.mp4

test: $(READY)  ## The whole suite.
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## The figures of benchmarks/results that need no GPU, measured again.
	for each in planning forecast coordinator_cost demo_cost stitching_speed stitching_quality motion_judge \
		tiny_i2v_speed tiny_i2v_quality watchers doors pages; do \
		$(BIN)/python benchmarks/$$each.py || exit 1; done

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache
