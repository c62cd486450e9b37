"""What the spec predicts against the tensors that are really alive in full-size models.

The models run on PyTorch's meta device: every tensor has its shape and lifetime and no memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel

from nodes.engines.tokens import Pointwise, runs_of
from nodes.engines.wan.by_level import TOKENS_AT_ONCE, ByLevel
from nodes.engines.wan.causal_vae import bands_of, encode_chunk, no_caches
from nodes.engines.wan.layout import Kind, WanFolder
from nodes.engines.wan.spec import _Cost
from nodes.engines.wan.vae import BandDecoder
from tests.nodes.engines.live_bytes import LiveBytes, meta_tensor, on_meta

A14B: dict[str, Any] = {"in_channels": 36, "out_channels": 16, "num_layers": 2}
TI2V = {"num_attention_heads": 24, "in_channels": 48, "out_channels": 48, "ffn_dim": 14336, "num_layers": 2}
VACE: dict[str, Any] = {"num_attention_heads": 12, "in_channels": 16, "ffn_dim": 8960, "num_layers": 30}
VACE |= {"vace_layers": list(range(0, 30, 2))}
VAE_22: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
}
#: Latents down and across, and how many.
GRIDS = {"channels": (21, 60, 104), "in_place": (31, 44, 80), "vace": (21, 60, 104)}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flash")]


def _transformer(kind: Kind) -> Any:
    if kind == "vace":
        return on_meta(lambda: WanVACETransformer3DModel(**VACE))
    made = on_meta(lambda: WanTransformer3DModel(**(A14B if kind == "channels" else TI2V)))
    return made if kind == "vace" else ByLevel(made, Pointwise(TOKENS_AT_ONCE))


def _cost(kind: Kind, vae: Any, transformer: Any) -> _Cost:
    folder = WanFolder(
        Path(), kind, ("transformer",), None, dict(transformer.config), dict(vae.config), {}, {}
    )
    _, down, across = GRIDS[kind]
    pixels = down * across * int(vae.config.scale_factor_spatial) ** 2
    return _Cost.of(folder, {"transformer": {}}, "cuda", {}, pixels)


def _vae(kind: Kind) -> Any:
    return on_meta(lambda: AutoencoderKLWan(**(VAE_22 if kind == "in_place" else {})))


@pytest.mark.parametrize("kind", ["channels", "in_place", "vace"])
def test_a_token_holds_at_most_what_the_spec_says_and_nearly_that(kind: Kind) -> None:
    transformer = _transformer(kind)
    config = transformer.config if kind == "vace" else transformer.stock.config
    grid = GRIDS[kind]
    tokens = grid[0] * grid[1] * grid[2] // 4
    vae = _vae(kind)
    z = vae.config.z_dim
    with torch.no_grad(), LiveBytes(transformer) as counted:
        # The loop's own: latents, what is given, a guided velocity.
        held = [meta_tensor(z, *grid, dtype=torch.float32) for _ in range(2)]
        more: dict[str, Any] = {}
        timestep = meta_tensor(1, dtype=torch.float32)
        if kind == "channels":
            held.append(meta_tensor(z + 4, *grid, dtype=torch.float32))
            more["runs"] = runs_of([1.0] * grid[0], tokens // grid[0])[1]
        elif kind == "in_place":
            held.append(meta_tensor(z, *grid, dtype=torch.float32))
            timestep = meta_tensor(2, dtype=torch.float32)
            more["runs"] = runs_of([0.0] + [1.0] * (grid[0] - 1), tokens // grid[0])[1]
        else:
            held.append(meta_tensor(96, *grid, dtype=torch.float32))
            more["control_hidden_states"] = meta_tensor(1, 96, *grid)
        transformer(
            hidden_states=meta_tensor(1, config.in_channels, *grid),
            timestep=timestep,
            encoder_hidden_states=meta_tensor(1, 512, 4096),
            **more,
        )
        del held
    predicted = _cost(kind, vae, transformer if kind == "vace" else transformer.stock).per_token
    assert 0.96 * predicted <= counted.peak / tokens <= predicted


@pytest.mark.long
@pytest.mark.parametrize("bands", [1, 2])
@pytest.mark.parametrize("kind", ["channels", "in_place"])
def test_decoding_holds_what_the_spec_says_whatever_the_window(kind: Kind, bands: int) -> None:
    vae, (_, down, across) = _vae(kind), GRIDS[kind]
    cost = _cost(kind, vae, _transformer(kind).stock)
    peaks = []
    with torch.no_grad(), LiveBytes(vae) as counted:
        decoder = BandDecoder(vae.decoder, bands_of(vae, down, bands)[0])
        for place in range(4):
            out = decoder(meta_tensor(1, vae.decoder.conv_in.out_channels, 1, down, across), first=place == 0)
            del out
            peaks.append(counted.peak)
    assert peaks[-1] == peaks[-2]  # a longer window holds no more
    per_pixel, fixed = cost.decode[bands > 1]
    predicted = per_pixel * down * across * vae.config.scale_factor_spatial**2 + fixed
    assert 0.93 * predicted <= peaks[-1] <= predicted


@pytest.mark.long
@pytest.mark.parametrize("kind", ["channels", "in_place"])
def test_encoding_holds_what_the_spec_says_whatever_the_window(kind: Kind) -> None:
    vae, (_, down, across) = _vae(kind), GRIDS[kind]
    scale = vae.config.scale_factor_spatial
    pixels = down * across * scale**2
    cost = _cost(kind, vae, _transformer(kind).stock)
    peaks = []
    with torch.no_grad(), LiveBytes(vae) as counted:
        caches = no_caches(vae.encoder)
        for place in range(4):
            out = encode_chunk(
                vae, caches, meta_tensor(1, 3, 4 if place else 1, down * scale, across * scale)
            )
            del out
            peaks.append(counted.peak)
    assert peaks[-1] == peaks[-2]
    assert 0.96 * cost.image_per_pixel <= peaks[0] / pixels <= cost.image_per_pixel
    assert 0.96 * cost.encode_per_pixel <= peaks[-1] / pixels <= cost.encode_per_pixel
