"""Every line of Python in docs/python.md runs, with smaller videos."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import reelfarm
from farm.endpoint import Endpoint, remove_endpoint, write_endpoint
from reelfarm import Farm, Video
from reelfarm.options import job_options
from tests.dashboard.conftest import TOKEN
from tests.dashboard.conftest import Farm as Served

pytestmark = pytest.mark.slow  # serves a whole farm on a socket

DOCUMENT = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
SMALL = {"model": "procedural", "num_frames": 8, "seconds": None, "width": 32, "height": 32}


def small(prompt: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    return job_options(prompt, {**options, **SMALL})


@pytest.mark.asyncio(loop_scope="module")
async def test_the_lines_of_the_document_run(
    farm_url: str, shared_farm: Served, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("REELFARM_STATE", str(shared_farm.state_dir))
    for each in (Farm, reelfarm.render, reelfarm.AsyncFarm):
        module = inspect.getmodule(each)
        monkeypatch.setattr(module, "job_options", small)
    monkeypatch.setattr(Farm, "start", lambda: Farm(farm_url, key=TOKEN))
    endpoint = Endpoint(url=farm_url, token=TOKEN)
    write_endpoint(shared_farm.state_dir, endpoint)
    names: dict[str, Any] = {}
    try:
        for block in BLOCKS:
            lines = re.sub(r"(http://)?192\.168\.1\.10:8470", farm_url, block).replace("rf_…", TOKEN)
            code = compile(lines, "docs/python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if "await " in block:
                await eval(code, names)
            else:
                await asyncio.to_thread(eval, code, names)
    finally:
        remove_endpoint(shared_farm.state_dir, endpoint)
    assert len(BLOCKS) == 5
    assert isinstance(names["video"], Video)
    assert names["video"].path == tmp_path / "out-2.mp4", "the first block saved out.mp4"
    assert len(names["takes"]) == 4
    assert names["frames"].shape == (8, 32, 32, 3)
