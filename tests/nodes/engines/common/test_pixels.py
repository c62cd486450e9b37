from __future__ import annotations

import numpy as np
import torch

from nodes.engines.common import ClipOnHost, frames_of


def test_a_clip_comes_to_the_host_chunk_by_chunk_and_band_by_band() -> None:
    pixels = torch.rand(5, 3, 8, 6) * 2 - 1
    with ClipOnHost((5, 8, 6)) as clip:
        for top in (0, 4):
            clip.put(pixels[:1, :, top : top + 4], first=0, top=top)
            clip.put(pixels[1:, :, top : top + 4], first=1, top=top)
        frames = clip.frames()
    assert np.array_equal(frames, frames_of(pixels).numpy())
