"""The coefficients of the denoising stage against the tensors that are really alive in the full-size UNet.

The UNet runs on PyTorch's meta device: every tensor has its shape and lifetime and no memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import I2VGenXLUNet

from nodes.engines.common.attention import set_attention
from nodes.engines.common.pieces import set_pieces, wrap_in_pieces
from nodes.engines.common.temporal_convs import fold_temporal_convs
from nodes.engines.i2vgen_xl.spec import _Cost
from tests.nodes.engines.live_bytes import LiveBytes

pytestmark = pytest.mark.slow

SIDE, FRAMES = 64, 8  # latents of 512x512x8


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"):
            config = {"sample_size": 32, "cross_attention_dim": 1024, "attention_head_dim": 64}
            unet: Any = I2VGenXLUNet(**config)  # type: ignore[no-untyped-call]
    finally:
        torch.set_default_dtype(torch.float32)
    unet.eval().requires_grad_(False)
    fold_temporal_convs(unet)
    wrap_in_pieces(unet)
    set_attention(unet, "sdpa")
    return unet


BytesPerVoxel = Callable[[int, int], float]


@pytest.fixture(scope="module")
def bytes_per_voxel(unet: Any) -> Iterator[BytesPerVoxel]:
    """``bytes_per_voxel(batch, pieces)``: at most alive in one call, counted once."""

    def flash(query: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.empty_like(query)  # a flash kernel holds its output alone, not the scores

    def tensor(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float16, device="meta")

    @cache
    def counted(batch: int, pieces: int) -> float:
        set_pieces(unet, pieces)
        with torch.no_grad(), LiveBytes(unet) as count:
            unet(
                tensor(batch, 4, FRAMES, SIDE, SIDE),
                torch.empty((), device="meta"),
                fps=tensor(batch),
                image_latents=tensor(batch, 4, FRAMES, SIDE, SIDE),
                image_embeddings=tensor(batch, 1, 1024),
                encoder_hidden_states=tensor(batch, 77, 1024),
            )
        return count.peak / (batch * FRAMES * SIDE * SIDE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", flash)
        yield counted


@pytest.fixture
def cost(unet: Any) -> _Cost:
    config = json.loads(unet.to_json_string())
    return _Cost.of(config, {"block_out_channels": [128, 256, 512, 512]}, {}, 2)


@pytest.mark.parametrize("batch", [1, 2])
def test_whole_layers_hold_what_the_spec_says(
    bytes_per_voxel: BytesPerVoxel, cost: _Cost, batch: int
) -> None:
    held = bytes_per_voxel(batch, 1)
    assert held == pytest.approx(cost.denoise_whole * cost.vae_scale**2, rel=0.02)


@pytest.mark.parametrize("batch", [1, 2])
def test_layers_in_pieces_hold_at_most_what_the_spec_says_and_nearly_that(
    bytes_per_voxel: BytesPerVoxel, cost: _Cost, batch: int
) -> None:
    held = bytes_per_voxel(batch, 4)
    assert 0.9 * cost.denoise_in_pieces * cost.vae_scale**2 <= held
    assert held <= cost.denoise_in_pieces * cost.vae_scale**2


def test_pieces_take_well_under_half_of_the_live_bytes(bytes_per_voxel: BytesPerVoxel) -> None:
    assert bytes_per_voxel(2, 4) < 0.45 * bytes_per_voxel(2, 1)
