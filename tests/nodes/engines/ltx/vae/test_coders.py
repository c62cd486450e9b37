from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo

from nodes.engines.ltx.vae import decoded, encoded
from tests.nodes.engines.ltx.conftest import OLD_VAE, VAE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("config", [VAE, OLD_VAE], ids=["0.9.8", "0.9.0"])
@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_a_clip_in_chunks_of_any_size_is_coded_as_the_stock_vae_codes_the_whole(
    config: dict[str, Any], causal: bool
) -> None:
    torch.manual_seed(0)
    vae: Any = AutoencoderKLLTXVideo(**config, decoder_causal=causal).eval()
    timestep = torch.tensor([0.05]) if vae.config.timestep_conditioning else None
    for num_frames, at_once in ((1, 8), (9, 1), (41, 8), (41, 100)):
        pixels = torch.randn(1, 3, num_frames, 64, 32).clamp(-1, 1)
        latents = vae.encode(pixels).latent_dist.mode()
        frames = vae.decode(latents, timestep).sample
        ours = torch.cat(list(encoded(vae.encoder, iter(pixels.split(at_once, dim=2)))), dim=2)
        assert torch.allclose(ours, latents, atol=1e-4)
        chunks = list(decoded(vae.decoder, latents, timestep, frames_at_once=at_once))
        assert torch.allclose(torch.cat(chunks, dim=2), frames, atol=1e-4)
        assert all(chunk.shape[2] <= at_once for chunk in chunks)


@torch.no_grad()
def test_a_layer_is_called_as_often_for_the_last_chunk_as_for_any_other() -> None:
    """What lags behind each of 40 layers would come in 40 chunks of a frame."""
    vae: Any = AutoencoderKLLTXVideo(**VAE).eval()
    calls: list[int] = []
    vae.decoder.conv_out.conv.register_forward_hook(lambda *_: calls.append(1))
    for _ in decoded(vae.decoder, torch.randn(1, 8, 6, 1, 1), torch.tensor([0.05]), frames_at_once=8):
        pass
    assert len(calls) <= 41 / 8 + 2
