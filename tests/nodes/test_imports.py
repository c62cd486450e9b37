"""A process loads what it works with: a command no Ray, a worker that has no model yet no torch."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

HEAVY = {"ray", "torch", "diffusers", "transformers", "cv2", "av", "fastapi"}


NEEDED: dict[str, set[str]] = {
    "farm.cli": set(),
    "nodes.machine": set(),
    "nodes.engines": {"cv2"},  # what is drawn, is drawn with it
    "nodes.ray": set(),  # its driver and its workers are processes of their own
    "nodes.hosting": {"cv2", "av"},
    "dashboard.app": {"fastapi"},
}
#: Each is imported by a process of its own, a fork of one that has imported the first: most of the others'
#: work. What that one loaded is counted for each.
IMPORT_EACH = """
import importlib, os, sys
for module in sys.argv[1:]:
    if module == sys.argv[1] or os.fork() == 0:
        importlib.import_module(module)
        print(module, *sys.modules, flush=True)
        if module != sys.argv[1]:
            os._exit(0)
    else:
        assert os.wait()[1] == 0, module
"""


@cache
def loaded() -> dict[str, set[str]]:
    """What is loaded after an import, by the module that is imported."""
    command = [sys.executable, "-c", IMPORT_EACH, *NEEDED]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return {module: set(modules) for module, *modules in map(str.split, said.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize(("module", "needed"), NEEDED.items())
def test_an_import_loads_no_heavy_library_but_what_lives_there(module: str, needed: set[str]) -> None:
    assert module in loaded()[module]
    assert loaded()[module] & HEAVY == needed
