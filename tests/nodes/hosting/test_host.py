from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun
from nodes.hosting.host import local_farm


async def test_a_ray_that_does_not_start_is_one_line_and_the_state_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("AF_UNIX path length cannot\nexceed 107 bytes")

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # what Ray is told stays in this test
    worker = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)
    for _ in range(2):
        with pytest.raises(CannotRun) as refused:
            async with local_farm(tmp_path, [worker]):
                pass
        assert refused.value.message == (
            "Ray did not start here: AF_UNIX path length cannot exceed 107 bytes; "
            "`farm doctor` looks the machine over"
        )
