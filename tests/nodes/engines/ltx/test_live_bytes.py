"""What the spec predicts against the tensors that are really alive in full-size models.

The models run on PyTorch's meta device: every tensor has its shape and lifetime and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel

from benchmarks.engines._full_size import LTX_VAE as VAE
from nodes.engines.common.pieces import set_pieces
from nodes.engines.ltx.layout import LtxFolder
from nodes.engines.ltx.spec import _Cost
from nodes.engines.ltx.transformer import TOKENS_AT_ONCE, RunwiseTransformer
from nodes.engines.ltx.vae import decoded, encoded
from nodes.engines.tokens import Pointwise, Run
from tests.nodes.engines.live_bytes import LiveBytes, meta_tensor, on_meta

HEIGHT, WIDTH = 480, 704
PER_LATENT = HEIGHT * WIDTH // 32**2
TOKENS = 21 * PER_LATENT
#: Frames in flight in the VAE.
AT_ONCE = 8
SIZES: dict[str, dict[str, Any]] = {
    "2B": {"attention_head_dim": 64, "cross_attention_dim": 2048},
    "13B": {"attention_head_dim": 128, "cross_attention_dim": 4096},
}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flash")]


def _transformer(size: str) -> Any:
    return on_meta(lambda: LTXVideoTransformer3DModel(num_layers=2, **SIZES[size]))


def _cost(size: str) -> _Cost:
    folder = LtxFolder(Path(), {**SIZES[size], "in_channels": 128}, VAE, {}, {}, distilled=False)
    return _Cost(folder, {}, {}, unpacked={}, element_bytes=2, on_cpu=False)


def _held_by_stock(size: str) -> float:
    """Bytes a token of the stock forward, with a timestep for every token."""
    stock = _transformer(size)
    with torch.no_grad(), LiveBytes(stock) as counted:
        stock(
            meta_tensor(1, TOKENS, 128),
            meta_tensor(1, 256, 4096),
            meta_tensor(1, TOKENS, dtype=torch.float32),
            meta_tensor(1, 256),
            video_coords=meta_tensor(1, 3, TOKENS, dtype=torch.float32),
        )
    return float(counted.peak) / TOKENS


def _held(size: str, pieces: int) -> float:
    """Bytes a token of the forward over runs: a given first latent and the others."""
    transformer = RunwiseTransformer(_transformer(size), Pointwise(TOKENS_AT_ONCE))
    set_pieces(transformer, pieces)
    with torch.no_grad(), LiveBytes(transformer) as counted:
        tokens = meta_tensor(TOKENS, 128, dtype=torch.float32)
        kept = (meta_tensor(TOKENS, 128, dtype=torch.float32) for _ in range(4))  # the loop's own
        held = [*kept]
        rotary = meta_tensor(TOKENS, transformer.stock.rope.dim // 2, dtype=torch.complex64)
        transformer(
            tokens[None].to(torch.bfloat16),
            meta_tensor(1, 40, 4096),
            meta_tensor(2, dtype=torch.float32),
            [Run(0, PER_LATENT, 0), Run(PER_LATENT, TOKENS, 1)],
            rotary,
        )
        del held
    return float(counted.peak) / TOKENS


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pieces", [1, 4])
def test_a_token_holds_at_most_what_the_spec_says_and_nearly_that(size: str, pieces: int) -> None:
    predicted = _cost(size).per_token(whole=pieces == 1)
    assert 0.93 * predicted <= _held(size, pieces) <= predicted


@pytest.mark.parametrize("size", SIZES)
def test_a_modulation_for_each_noise_level_holds_less_than_half_of_one_for_each_token(size: str) -> None:
    assert _held(size, 1) < 0.47 * _held_by_stock(size)
    assert _held(size, 4) < 0.35 * _held_by_stock(size)


@pytest.fixture(scope="module")
def vae() -> Any:
    return on_meta(lambda: AutoencoderKLLTXVideo(**VAE))


@pytest.fixture(scope="module")
def small_vae() -> Any:
    shallow = {"layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 4}
    return on_meta(lambda: AutoencoderKLLTXVideo(**(VAE | shallow)))


def _decoding(vae: Any, num_frames: int) -> int:
    latents = meta_tensor(1, vae.config.latent_channels, num_frames // 8 + 1, HEIGHT // 32, WIDTH // 32)
    with torch.no_grad(), LiveBytes(vae) as counted:
        for chunk in decoded(vae.decoder, latents, meta_tensor(1), frames_at_once=AT_ONCE):
            del chunk
    return int(counted.peak)


def _encoding(vae: Any, num_frames: int) -> int:
    def pixels() -> Iterator[torch.Tensor]:
        for first in range(0, num_frames, AT_ONCE):
            yield meta_tensor(1, 3, min(AT_ONCE, num_frames - first), HEIGHT, WIDTH)

    with torch.no_grad(), LiveBytes(vae) as counted:
        for chunk in encoded(vae.encoder, pixels()):
            del chunk
    return int(counted.peak)


@pytest.mark.long
def test_decoding_and_encoding_hold_what_the_spec_says_and_stock_five_times_as_much(vae: Any) -> None:
    cost, pixels = _cost("2B"), HEIGHT * WIDTH
    decoding, encoding = _decoding(vae, 257), _encoding(vae, 65)
    assert 0.93 * cost.decode_per_pixel(AT_ONCE) <= decoding / pixels <= cost.decode_per_pixel(AT_ONCE)
    assert 0.93 * cost.encode_per_pixel(AT_ONCE) <= encoding / pixels <= cost.encode_per_pixel(AT_ONCE)
    # An image: a card held a fifth more than its tensors.
    assert 0.8 * cost.image_per_pixel <= _encoding(vae, 1) / pixels <= cost.image_per_pixel
    # The stock decoder: for fewer frames, and more for more.
    with torch.no_grad(), LiveBytes(vae) as counted:
        vae.decode(meta_tensor(1, 128, 21, HEIGHT // 32, WIDTH // 32), meta_tensor(1))
    assert counted.peak > 5 * decoding


def test_a_longer_clip_holds_no_more_than_its_latents(small_vae: Any) -> None:
    channels = small_vae.config.latent_channels
    more = _decoding(small_vae, 193) - _decoding(small_vae, 129)
    assert more <= 2 * 8 * channels * PER_LATENT
    assert _encoding(small_vae, 57) == _encoding(small_vae, 33)
