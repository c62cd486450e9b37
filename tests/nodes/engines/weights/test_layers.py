from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from nodes.engines.folders import WeightFormat
from nodes.engines.streaming.weight_ring import WeightRing
from nodes.engines.weights import QuantisedLinear, ScaledLinear, quantised

pytestmark = pytest.mark.torch
#: Root mean square error of random weights, relative to them.
ERROR: dict[WeightFormat, float] = {"int8": 0.012, "float8": 0.04}
FORMATS: list[WeightFormat] = ["int8", "float8"]


def scaled(weight: torch.Tensor, format: WeightFormat, bias: torch.Tensor | None = None) -> ScaledLinear:
    stored, scale = quantised(weight, format)
    return ScaledLinear(stored, scale, bias, format=format, dtype=torch.bfloat16)


@pytest.fixture
def weight() -> torch.Tensor:
    torch.manual_seed(5)
    # Channels of very different size, as trained layers have.
    return torch.randn(48, 64) * torch.logspace(-6, 1, 48)[:, None]


@pytest.mark.parametrize("format", FORMATS)
def test_every_channel_keeps_its_weights_to_the_precision_of_the_format(
    weight: torch.Tensor, format: WeightFormat
) -> None:
    off = (scaled(weight, format).dequantised(torch.float32) - weight).square().mean(1).sqrt()
    assert (off / weight.square().mean(1).sqrt()).max() < ERROR[format]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format", FORMATS)
def test_a_layer_computes_as_one_with_the_dequantised_weight_rounded_once(
    weight: torch.Tensor, format: WeightFormat, dtype: torch.dtype
) -> None:
    bias = torch.randn(48).bfloat16()
    stored, scale = quantised(weight, format)
    exact = stored.float() * scale
    x = torch.randn(2, 7, 64).to(dtype)
    got = scaled(weight, format, bias)(x)
    assert got.dtype == dtype
    assert torch.equal(got, functional.linear(x, exact.to(dtype), bias.to(dtype)))


@pytest.mark.parametrize("format", FORMATS)
def test_a_channel_of_zeros_and_the_largest_weights_are_exact(format: WeightFormat) -> None:
    weight = torch.tensor([[0.0, 0.0], [3.0, -1.5], [-448.0, 448.0]])
    got = scaled(weight, format).dequantised(torch.float32)
    assert torch.equal(got[0], weight[0])
    assert torch.equal(got.abs().amax(1), weight.abs().amax(1))


@pytest.mark.parametrize("format", FORMATS)
def test_a_cast_of_the_module_leaves_the_stored_bytes_alone(
    weight: torch.Tensor, format: WeightFormat
) -> None:
    layer = scaled(weight, format)
    before = layer.stored.clone()
    layer.to(torch.float16)
    assert torch.equal(layer.stored, before)
    assert layer.stored.nbytes == weight.numel()
    assert layer.weight.dtype == torch.bfloat16


def test_a_branch_adds_its_product_to_the_weight(weight: torch.Tensor) -> None:
    layer = scaled(weight, "int8")
    down, up = torch.randn(4, 64), torch.randn(48, 4)
    x = torch.randn(3, 5, 64)
    without = layer(x)
    layer.set_branch(down, up)
    torch.testing.assert_close(layer(x), without + x @ (up @ down).T, atol=1e-4, rtol=1e-5)


class _Block(nn.Module):
    def __init__(self, format: WeightFormat) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.layer = scaled(torch.randn(32, 32), format, torch.randn(32))
        self.layer.set_branch(torch.randn(2, 32), torch.randn(32, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(self.norm(x)) / 8


@pytest.mark.parametrize("format", FORMATS)
def test_stored_layers_pass_through_the_weight_ring_unchanged(format: WeightFormat) -> None:
    torch.manual_seed(6)
    stack = nn.Sequential(*(_Block(format) for _ in range(5))).requires_grad_(False)
    x = torch.randn(4, 32)
    expected = stack(x)
    ring = WeightRing(stack, "cpu", group_bytes=4096, slots=2)
    with ring:
        passes = [stack(x) for _ in range(2)]
    assert all(torch.equal(each, expected) for each in passes)
    assert ring.slot_bytes < 4096
    assert all(isinstance(block.layer, QuantisedLinear) for block in stack)
