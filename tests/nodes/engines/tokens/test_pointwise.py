from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel, WanTransformer3DModel

from nodes.engines.ltx.transformer import RunwiseTransformer, rotary_table
from nodes.engines.streaming.weight_ring import WeightRing
from nodes.engines.tokens import Pointwise, Run, pointwise, runs_of
from nodes.engines.wan.by_level import ByLevel
from tests.nodes.engines.ltx.conftest import TRANSFORMER

pytestmark = pytest.mark.slow

PER_LATENT = 6
WAN: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 8,
    "ffn_dim": 32,
}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Counts what is compiled, which then runs as it was traced."""
    from torch._dynamo.testing import CompileCounter  # a quarter of a second in every process that collects

    counter = CompileCounter()
    torch._dynamo.reset()
    monkeypatch.setattr(pointwise, "_COMPILED", {})
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: compile_(f, backend=counter, **kw))
    yield counter
    torch._dynamo.reset()


def _wan(layers: int, how: Pointwise) -> tuple[ByLevel, Any]:
    torch.manual_seed(4)
    model = ByLevel(WanTransformer3DModel(num_layers=layers, **WAN).eval().requires_grad_(False), how)
    latents, text = torch.randn(1, 4, 4, 4, 6), torch.randn(1, 7, 16)
    levels, runs = runs_of([0.0, 625.0, 625.0, 625.0], PER_LATENT)
    return model, lambda: model(latents, torch.tensor(levels), text, runs=runs)[0]


def _ltx(layers: int, how: Pointwise) -> tuple[RunwiseTransformer, Any]:
    torch.manual_seed(4)
    stock = LTXVideoTransformer3DModel(**(TRANSFORMER | {"num_layers": layers})).eval().requires_grad_(False)
    model = RunwiseTransformer(copy.deepcopy(stock), how)
    tokens, text = torch.randn(1, 4 * PER_LATENT, 8), torch.randn(1, 5, 24)
    levels, runs = runs_of([0.0, 700.0, 700.0, 700.0], PER_LATENT)
    rotary = rotary_table(stock.rope, torch.rand(3, 4 * PER_LATENT))
    return model, lambda: model(tokens, text, torch.tensor(levels), runs, rotary)


@pytest.mark.parametrize("family", [_wan, _ltx])
def test_compiled_once_for_all_blocks_whatever_streams_their_weights(family: Any, graphs: Any) -> None:
    how = Pointwise(tokens_at_once=5)
    model, forward = family(2, how)
    with torch.no_grad():
        expected = forward()
        how.compiled = True
        assert torch.allclose(forward(), expected, atol=1e-5)
        once = graphs.frame_count
        # Of a modulation, a norm, a gated sum, and queries or keys of either attention; each without a break.
        assert 0 < once <= 8
        with WeightRing(model, "cpu", group_bytes=600, slots=2):
            assert torch.allclose(forward(), expected, atol=1e-5)
        _, through_five_blocks = family(5, how)
        through_five_blocks()
    assert graphs.frame_count == once


def test_windows_of_other_lengths_are_compiled_for_once_more_and_no_more(graphs: Any) -> None:
    how, norm = Pointwise(5, compiled=True), torch.nn.LayerNorm(8, elementwise_affine=False)
    rows = torch.randn(2, 2, 8)
    counts = []
    for tokens in (12, 20, 24, 30):
        runs = [Run(0, 4, 0), Run(4, tokens, 1)]
        x = torch.randn(1, tokens, 8)
        expected = Pointwise(7).modulated(norm, x, *rows, runs)
        assert torch.allclose(how.modulated(norm, x, *rows, runs), expected, atol=1e-5)
        counts.append(graphs.frame_count)
    assert counts == [1, 2, 2, 2]


def test_tokens_in_a_row_that_share_a_level_are_one_run() -> None:
    assert runs_of([0.0, 0.5, 0.5, 0.0], 10) == (
        [0.0, 0.5],
        [Run(0, 10, 0), Run(10, 30, 1), Run(30, 40, 0)],
    )
