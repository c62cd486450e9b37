from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan

from nodes.engines.wan.causal_vae import bands_of, middle, no_caches, out_of_patches
from nodes.engines.wan.loading import lay_channels_last
from nodes.engines.wan.vae import BandDecoder, bands

pytestmark = pytest.mark.slow

WITHOUT_PATCHES: dict[str, Any] = {"base_dim": 8, "z_dim": 4, "latents_mean": [0] * 4, "latents_std": [1] * 4}
RESIDUAL: dict[str, Any] = {
    **WITHOUT_PATCHES,
    "decoder_base_dim": 12,
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
}
NUM_LATENTS = 3


@pytest.mark.parametrize("config", [WITHOUT_PATCHES, RESIDUAL], ids=["2.1", "2.2"])
@pytest.mark.parametrize("channels_last", [False, True])
@torch.no_grad()
def test_a_clip_in_bands_is_what_the_stock_decoder_makes_of_it(
    config: dict[str, Any], channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**config).eval().requires_grad_(False)
    latents = torch.randn(1, 4, NUM_LATENTS, 5, 3)
    stock = vae.decode(latents).sample
    if channels_last:
        lay_channels_last(vae)
    caches = no_caches(vae.decoder)
    entered = [middle(vae, caches, latents[:, :, i : i + 1]) for i in range(NUM_LATENTS)]
    # A frame at once; pieces of a few rows; more bands than rows of latents.
    for count, piece_bytes, num_bands in ((1, 2**30, 1), (2, 3000, 2), (9, 20_000, 5)):
        monkeypatch.setattr(bands, "_PIECE_BYTES", piece_bytes)
        made = []
        for rows in bands_of(vae, 5, count):
            decoder = BandDecoder(vae.decoder, rows)
            made.append(torch.cat([decoder(x, first=i == 0) for i, x in enumerate(entered)], dim=2))
            assert (made[-1].stride(1) == 1) == channels_last  # from the first level to the last
        assert len(made) == num_bands
        pixels = out_of_patches(vae, torch.cat(made, dim=3)).clamp(-1, 1)
        assert torch.allclose(pixels, stock, atol=1e-5)
