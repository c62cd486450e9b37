from __future__ import annotations

from pathlib import Path

import pytest

from farm.errors import CannotRun
from farm.outputs import Outputs
from farm.running import SHEET_NAME, VIDEO_NAME
from nodes.hosting.render_here import delivered


def test_where_the_contact_sheet_cannot_be_written_the_video_is_there_and_told(tmp_path: Path) -> None:
    (tmp_path / VIDEO_NAME).write_bytes(b"video")
    (tmp_path / SHEET_NAME).write_bytes(b"sheet")
    video = tmp_path / "v.mp4"
    target = Outputs(video=video, sheet=tmp_path / "gone" / "v.png")
    with pytest.raises(CannotRun, match=r"v\.png cannot be written .* the video is there: .*v\.mp4"):
        delivered(tmp_path, target, 0o644)
    assert video.read_bytes() == b"video"
