"""An engine imports the models it runs, and not the other hundreds that its library knows."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodes.engines import table

pytestmark = [pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[3]
#: Told by a process of its own: what this one has imported says nothing.
SCRIPT = """
import json, sys
from nodes.engines import import_engines
import_engines()
here = list(sys.modules)
found = {"engines": [name for name in here if name.startswith("nodes.engines.") and name.endswith(".engine")]}
found["transformers"] = [name for name in here if name.startswith("diffusers.models.transformers.")]
import torch
found["card"] = torch.cuda.is_initialized()
found["disable"] = torch.compiler.disable.__module__
found["finders"] = [type(finder).__module__ for finder in sys.meta_path]
# Asked for by name, a package is whole.
from diffusers.models.transformers import AuraFlowTransformer2DModel as A
from diffusers import FluxTransformer2DModel as B, UNet2DConditionModel as C
found["asked"] = [each.__name__ for each in (A, B, C)]
try:
    from diffusers.models.unets import Nothing
except ImportError as error:
    found["missing"] = str(error).split(" (")[0]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> Any:
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    return json.loads(run.stdout.splitlines()[-1])


def test_every_engine_is_imported_and_of_the_library_what_they_run(found: Any) -> None:
    assert {name.split(".")[2] for name in found["engines"]} >= {
        "i2vgen_xl",
        "animatediff",
        "ltx",
        "svd",
        "wan",
    }
    assert len(found["transformers"]) < 20, "of eighty"
    assert not found["card"], "a worker without work holds nothing of a card"


def test_a_package_is_whole_for_whoever_asks_it_and_nothing_else_is_changed(found: Any) -> None:
    assert found["asked"] == ["AuraFlowTransformer2DModel", "FluxTransformer2DModel", "UNet2DConditionModel"]
    assert found["missing"] == "cannot import name 'Nothing' from 'diffusers.models.unets'"
    assert found["disable"] == "torch.compiler"
    assert "nodes.engines.lean_imports" not in found["finders"]


def test_an_engine_that_cannot_be_imported_does_not_keep_the_worker_from_coming_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(table, "FAMILIES", (replace(table.WAN, name="none_such"),))
    table.import_engines()
    assert "the engine none_such cannot be imported: No module named" in caplog.text
