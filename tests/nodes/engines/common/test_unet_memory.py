from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import I2VGenXLUNet
from diffusers.models.attention import FeedForward

from nodes.engines.common.attention import set_attention
from nodes.engines.common.pieces import AttentionInRows, InPieces, set_pieces, wrap_in_pieces
from nodes.engines.common.temporal_convs import FoldedTemporalConv, fold_temporal_convs
from nodes.engines.streaming.weight_ring import WeightRing

pytestmark = pytest.mark.slow


@pytest.fixture
def unet(tiny_i2vgen_xl_folder: Path) -> Any:
    unet = I2VGenXLUNet.from_pretrained(tiny_i2vgen_xl_folder / "unet")  # type: ignore[no-untyped-call]
    return unet.eval().requires_grad_(False)


@pytest.fixture
def call() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "sample": randn(2, 4, 3, 8, 8),
        "timestep": torch.tensor(500),
        "fps": torch.tensor([8.0, 8.0]),
        "image_latents": randn(2, 4, 3, 8, 8),
        "image_embeddings": randn(2, 1, 32),
        "encoder_hidden_states": randn(2, 77, 32),
    }


def test_a_folded_temporal_convolution_equals_the_3d_one() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv3d(6, 10, (3, 1, 1), padding=(1, 0, 0))
    x = torch.randn(2, 6, 5, 4, 7)
    expected = conv(x)  # whose parameters it takes over
    assert torch.allclose(FoldedTemporalConv(conv)(x), expected, atol=1e-6)


def test_the_folded_unet_has_no_3d_convolutions_and_gives_the_same_numbers(
    unet: Any, call: dict[str, Any]
) -> None:
    expected = unet(**call).sample
    fold_temporal_convs(unet)
    assert not [m for m in unet.modules() if isinstance(m, torch.nn.Conv3d)]
    assert torch.allclose(unet(**call).sample, expected, atol=1e-5)


@pytest.mark.parametrize("pieces", [2, 4, 7])
def test_a_unet_in_pieces_gives_the_same_numbers(unet: Any, call: dict[str, Any], pieces: int) -> None:
    expected = unet(**call).sample
    wrap_in_pieces(unet)
    set_attention(unet, "sdpa")
    set_pieces(unet, pieces)
    assert torch.allclose(unet(**call).sample, expected, atol=1e-5)
    set_pieces(unet, 1)
    assert torch.equal(unet(**call).sample, expected)


def test_deeper_levels_run_in_fewer_pieces_and_wider_temporaries_in_more(unet: Any) -> None:
    wrap_in_pieces(unet)
    set_attention(unet, "sdpa")
    set_pieces(unet, 4)
    pieces = {name: layer.pieces for name, layer in unet.named_modules() if isinstance(layer, InPieces)}
    first, last = "down_blocks.0", f"down_blocks.{len(unet.down_blocks) - 1}"
    assert pieces[f"{first}.resnets.0"] == 4
    assert pieces[f"{first}.attentions.0.transformer_blocks.0.ff"] == 8
    assert pieces[f"{last}.resnets.0"] < 4
    assert pieces["image_latents_temporal_encoder.ff"] == 1
    rows = {name: p.pieces for name, p in unet.attn_processors.items() if isinstance(p, AttentionInRows)}
    assert rows.keys() == unet.attn_processors.keys()
    assert rows[f"{first}.attentions.0.transformer_blocks.0.attn1.processor"] == 3


def test_a_layer_in_pieces_sees_a_slice_at_a_time() -> None:
    layer = InPieces(FeedForward(8), share=1.0, by_token=True).requires_grad_(False)
    rows: list[int] = []
    layer.whole.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[0]))
    layer.pieces = 4
    layer(torch.randn(5, 6, 8))
    assert rows == [8, 8, 8, 6]


def test_attention_over_more_rows_than_a_launch_holds_is_split_without_a_change(
    unet: Any, call: dict[str, Any]
) -> None:
    expected = unet(**call).sample
    set_attention(unet, "sdpa", max_rows=50)  # 2 x 8 x 8 = 128 rows of temporal attention
    rows: list[int] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def count(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        rows.append(query.shape[0])
        return original(query, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", count)
        got = unet(**call).sample
    assert max(rows) == 50
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("group_bytes", [50_000, 400_000])
def test_a_streamed_unet_gives_exactly_the_numbers_of_a_resident_one(
    unet: Any, call: dict[str, Any], group_bytes: int
) -> None:
    fold_temporal_convs(unet)
    wrap_in_pieces(unet)
    set_attention(unet, "sdpa")
    set_pieces(unet, 4)
    expected = unet(**call).sample
    ring = WeightRing(unet, "cpu", group_bytes=group_bytes, slots=3)
    with ring:
        passes = [unet(**call).sample for _ in range(3)]
    assert all(torch.equal(got, expected) for got in passes)
    assert ring.slot_bytes < 0.2 * sum(p.nbytes for p in unet.parameters())
