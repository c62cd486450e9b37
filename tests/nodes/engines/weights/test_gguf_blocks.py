from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nodes.engines.weights import BLOCKS, GgufLinear, dequantised

pytestmark = pytest.mark.torch
#: Where the float16 numbers of a block are: random bytes there may be no numbers.
HALVES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip


def random_blocks(type: str, rows: int, blocks: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(len(type) + blocks)
    size = BLOCKS[type][0]
    data = rng.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    for at in HALVES[type]:
        numbers = rng.normal(0, 0.02, (rows, blocks, 1)).astype(np.float16)
        data[:, :, at : at + 2] = numbers.view(np.uint8)
    return data.reshape(rows, -1)


@pytest.mark.parametrize("type", BLOCKS)
def test_every_block_format_has_the_values_of_its_reference(type: str) -> None:
    data = random_blocks(type, 7, 3)
    expected = gguf.dequantize(data, gguf.GGMLQuantizationType[type])
    got = dequantised(torch.from_numpy(data), type, dtype=torch.float32)
    assert np.array_equal(got.numpy(), expected)
    sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type]]
    assert BLOCKS[type][:2] == (sizes[1], sizes[0])


@pytest.mark.parametrize("type", BLOCKS)
def test_what_is_dequantised_in_pieces_and_16_bits_is_rounded_once(
    type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = torch.from_numpy(random_blocks(type, 9, 2))
    expected = dequantised(stored, type, dtype=torch.float32)
    monkeypatch.setattr("nodes.engines.weights.gguf_blocks._CHUNK_ELEMENTS", 4 * BLOCKS[type][1])
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(dequantised(stored, type, dtype=dtype), expected.to(dtype))


@pytest.mark.parametrize("type", ["Q8_0", "Q4_K"])
def test_a_layer_of_blocks_computes_with_their_values(type: str) -> None:
    data, bias, x = random_blocks(type, 24, 2), torch.randn(24), torch.randn(5, 2 * BLOCKS[type][1])
    layer = GgufLinear(torch.from_numpy(data), bias, type=type, dtype=torch.bfloat16)
    weight = torch.from_numpy(gguf.dequantize(data, gguf.GGMLQuantizationType[type]))
    assert (layer.in_features, layer.out_features) == (x.shape[1], 24)
    assert torch.equal(layer(x), functional.linear(x, weight, bias))
    assert layer.weight.dtype == torch.bfloat16
