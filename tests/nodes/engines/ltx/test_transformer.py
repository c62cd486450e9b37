from __future__ import annotations

import copy

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from nodes.engines.ltx.conditioning import Places
from nodes.engines.ltx.transformer import RunwiseTransformer, rotary_table
from nodes.engines.tokens import Pointwise, runs_of
from tests.nodes.engines.ltx.conftest import TRANSFORMER

pytestmark = pytest.mark.slow

PER_LATENT = 6


@pytest.mark.parametrize(
    "levels", [[1.0, 1.0, 1.0, 1.0], [0.0, 0.7, 0.7, 0.7], [0.0, 0.3, 0.7, 0.3], [0.0, 0.0, 0.2, 0.9]]
)
@torch.no_grad()
def test_a_modulation_for_each_noise_level_gives_what_one_for_each_token_does(levels: list[float]) -> None:
    torch.manual_seed(2)
    stock = LTXVideoTransformer3DModel(**TRANSFORMER).eval()
    runwise = RunwiseTransformer(copy.deepcopy(stock), Pointwise(5)).eval()
    tokens, text = torch.randn(1, 4 * PER_LATENT, 8), torch.randn(1, 5, 24)
    places = Places(8, 32, causal=True).of(torch.empty(8, 4, 2, 3), 0, 25)
    padded = torch.nn.functional.pad(text, (0, 0, 0, 3), value=9.0)
    theirs = stock(
        tokens,
        padded,
        torch.tensor(levels).repeat_interleave(PER_LATENT)[None] * 1000,
        torch.arange(8)[None] < 5,
        video_coords=places[None],
    ).sample
    distinct, runs = runs_of(levels, PER_LATENT)
    ours = runwise(tokens, text, torch.tensor(distinct) * 1000, runs, rotary_table(stock.rope, places))
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert len(distinct) == len(set(levels))
