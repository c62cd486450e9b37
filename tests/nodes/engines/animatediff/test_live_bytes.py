"""The coefficients of the denoising stage against the tensors that are alive in the full-size model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import SparseControlNetModel, UNetMotionModel

from nodes.engines.animatediff.facts import ModelFacts
from nodes.engines.animatediff.layout import AnimateDiffFolder
from nodes.engines.animatediff.spec import _Cost
from nodes.engines.animatediff.unet import Denoiser
from tests.nodes.engines.live_bytes import LiveBytes, meta_tensor, on_meta

pytestmark = pytest.mark.long  # thousands of slices


@pytest.mark.usefixtures("flash")
@pytest.mark.parametrize(("batch", "is_given"), [(2, True), (1, False)])
def test_a_pass_holds_what_the_spec_says(batch: int, is_given: bool) -> None:
    unet = on_meta(lambda: UNetMotionModel(cross_attention_dim=768, use_motion_mid_block=not is_given))
    control = on_meta(SparseControlNetModel) if is_given else None
    denoiser = Denoiser(unet, control)
    folder = AnimateDiffFolder(
        path=Path(),
        unet={"block_out_channels": (320, 640, 1280, 1280)},
        adapter={},
        look=None,
        control={} if is_given else None,
        vae={"block_out_channels": (128, 256, 512, 512)},
        scheduler={},
    )
    cost = _Cost.of(folder, ModelFacts(), {}, "cuda")
    with torch.no_grad(), LiveBytes(denoiser) as count:
        denoiser(
            meta_tensor(16, 4, 64, 64),
            meta_tensor(dtype=torch.float32),
            meta_tensor(batch, 77, 768),
            meta_tensor(16, 5, 64, 64) if is_given else None,
        )
    told = cost.denoise * batch * 16 * 512 * 512 + cost.slice_bytes
    assert 0.97 * told <= count.peak <= 1.005 * told
