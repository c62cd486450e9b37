"""The coefficients of the stages against the tensors that are really alive in the full-size model."""

from __future__ import annotations

import pytest
import torch

from nodes.engines.common import fold_temporal_convs
from nodes.engines.placement import ELEMENTS_AT_ONCE
from nodes.engines.svd.spec import _Cost
from nodes.engines.svd.unet import SlicedUNet
from nodes.engines.svd.vae import FrameDecoder, LatentEncoder
from tests.nodes.engines.live_bytes import LiveBytes, meta_tensor
from tests.nodes.engines.svd.full_size import UNET, unet_on_meta, vae_on_meta

pytestmark = pytest.mark.long  # thousands of slices

PIXELS = 1024 * 576
WIDTHS = (128, 256, 512, 512)


@pytest.fixture(scope="module")
def cost() -> _Cost:
    from nodes.engines.svd.facts import ModelFacts

    return _Cost.of(UNET, {"block_out_channels": WIDTHS}, ModelFacts(), 25, {}, "cuda")


@pytest.mark.usefixtures("flash")
@pytest.mark.parametrize(("batch", "frames"), [(2, 25), (1, 14)])
def test_a_pass_holds_what_the_spec_says(cost: _Cost, batch: int, frames: int) -> None:
    stock = unet_on_meta()
    fold_temporal_convs(stock)
    unet = SlicedUNet(stock)
    with torch.no_grad(), LiveBytes(unet) as count:
        unet(
            meta_tensor(batch, frames, 8, 72, 128),
            meta_tensor(dtype=torch.float32),
            meta_tensor(batch, 1, 1024),
            meta_tensor(batch, 3, dtype=torch.float32),
        )
    told = cost.denoise * batch * frames * PIXELS + cost.slice_bytes
    assert cost.slice_bytes == 2 * ELEMENTS_AT_ONCE
    assert 0.98 * told <= count.peak <= 1.001 * told


def test_the_vae_holds_what_the_spec_says_of_a_frame(cost: _Cost) -> None:
    vae = vae_on_meta()
    decoder, encoder = FrameDecoder(vae), LatentEncoder(vae)
    with torch.no_grad(), LiveBytes(decoder) as count:
        decoder(meta_tensor(1, 4, 72, 128))
    assert 0.94 * cost.decode * PIXELS <= count.peak <= cost.decode * PIXELS
    with torch.no_grad(), LiveBytes(encoder) as count:
        encoder(meta_tensor(1, 3, 576, 1024))
    # Counted in half precision, whose convolutions hold two copies more.
    assert count.peak <= 2 * cost.encode * PIXELS * 2 / 3
