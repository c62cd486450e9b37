from __future__ import annotations

import sys
from pathlib import Path

import pytest

from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun
from nodes.hosting.host import local_farm

WORKER = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=GIB)


@pytest.mark.ray  # as far as it comes
async def test_a_ray_that_does_not_start_is_one_line_and_the_state_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What comes first on the path is what the driver's process imports.
    fake = tmp_path / "fake"
    (fake / "ray").mkdir(parents=True)
    (fake / "ray" / "__init__.py").write_text("raise OSError('AF_UNIX path length cannot exceed 107 bytes')")
    monkeypatch.setattr(sys, "path", [str(fake), *sys.path])
    for _ in range(2):
        with pytest.raises(CannotRun) as refused:
            async with local_farm(tmp_path / "state", [WORKER]):
                pass
        assert refused.value.message == (
            "Ray did not start here: OSError: AF_UNIX path length cannot exceed 107 bytes; "
            "`farm doctor` looks the machine over"
        )
