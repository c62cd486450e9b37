"""A video with a mask and pictures of what is to be seen, through a farm."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from farm.capabilities import FrameRule
from farm.planning import RenderTask
from farm.request import MediaInfo, VideoReading
from nodes.engines import RenderInputs
from nodes.engines.engine import Rendered, Report
from nodes.engines.procedural.engine import Procedural
from stitching.video_io import encode_lossless


class Painting(Procedural):
    """Paints what the mask says in the first reference's colour; the rest stays."""

    def __init__(self, given: list[tuple[RenderTask, RenderInputs]]) -> None:
        super().__init__()
        takes = frozenset({"image", "text", "video", "mask", "references"})
        causal = {"frames": FrameRule.causal(4, max_frames=33), "window_frames": 17, "default_strength": 0.5}
        self.spec = self.spec.model_copy(update={"takes": takes, "random_access": False, **causal})
        self._given = given

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        self._given.append((task, inputs))
        assert inputs.video is not None
        assert inputs.mask is not None
        return Rendered(
            np.where(inputs.mask[..., None], inputs.references[0][0, 0], inputs.video).astype(np.uint8)
        )


async def test_each_window_gets_its_part_of_the_mask_and_every_reference(
    run_farm: Any, photo: Any, job_request: Any, tmp_path: Path
) -> None:
    def stored(name: str, frames: Any) -> MediaInfo:
        path = tmp_path / name
        path.write_bytes(encode_lossless(frames, Fraction(8)))
        return MediaInfo(
            kind="video",
            width=64,
            height=64,
            num_frames=len(frames),
            fps=Fraction(8),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            path=path,
            reading=VideoReading(),
        )

    across = np.linspace(30, 220, 64).astype(np.uint8)
    source = np.broadcast_to(across[None, None, :, None], (33, 64, 64, 3)).copy()
    where = np.zeros_like(source)
    where[:, 20:40, 10:30] = 255
    given: list[tuple[RenderTask, RenderInputs]] = []
    engine = Painting(given)
    async with run_farm("a/0", engine=lambda m, w, _: Painting(given), spec=engine.spec) as farm:
        request = job_request(
            stored("source.mkv", source),
            mask=stored("mask.mkv", where),
            references=(photo(), photo(1)),
            width=64,
            height=64,
        )
        job = await farm.ended(farm.coordinator.submit(request))
        assert job.status == "succeeded", job.reason
        made = farm.video(job)
        shown = given[0][1].references
        # What the job is made from is kept for as long as it is.
        kept = [farm.storage.path(media.sha256).exists() for media in request.files]
    assert (made.shape, len(shown), kept) == ((33, 64, 64, 3), 2, [True] * 4)
    assert np.abs(made[:, :, 40:].astype(int) - source[:, :, 40:]).mean() < 4
    assert np.abs(made[:, 24:36, 14:26].astype(int) - shown[0][0, 0]).mean() < 8
    assert all(task.strength == 1 and inputs.mask is not None for task, inputs in given)
