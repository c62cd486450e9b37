"""A process loads what it works with: a command no Ray, a worker that has no model yet no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"ray", "torch", "diffusers", "transformers", "cv2", "av", "fastapi"}


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("farm.cli", set()),
        ("nodes.machine", set()),
        ("nodes.engines", {"cv2"}),  # what is drawn, is drawn with it
        ("nodes.ray", set()),  # its driver and its workers are processes of their own
        ("nodes.hosting", {"cv2", "av"}),
        ("dashboard.app", {"fastapi"}),
    ],
)
def test_an_import_loads_no_heavy_library_but_what_lives_there(module: str, needed: set[str]) -> None:
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(said.stdout.split()) & HEAVY == needed
