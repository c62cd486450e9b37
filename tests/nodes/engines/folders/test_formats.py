from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nodes.engines.folders import Kept, WeightFormat, component_tensors, stored_bytes, stored_tensors

KEPT = Kept(plain=("norm", "patch_embedding"), float32=("time_embedder", "wo"))


@pytest.mark.parametrize(
    ("name", "shape", "taken"),
    [
        ("blocks.0.attn1.to_q.weight", (64, 64), True),
        ("blocks.0.attn1.to_q.bias", (64,), False),
        ("patch_embedding.weight", (64, 16), False),
        ("conv.weight", (64, 16, 1, 2, 2), False),
        ("blocks.0.norm_q.weight", (64, 64), False),
        ("condition_embedder.time_embedder.linear_1.weight", (64, 16), False),
        ("encoder.block.0.wo.weight", (64, 64), False),
        ("encoder.block.0.two.weight", (64, 64), True),
        ("blocks.0.scale_shift_table", (6, 64), False),
    ],
)
def test_matrices_are_stored_in_fewer_bits_unless_their_name_is_kept(
    name: str, shape: tuple[int, ...], taken: bool
) -> None:
    assert KEPT.quantises(name, shape) == taken


@pytest.fixture
def component(tmp_path: Path) -> Path:
    shards: list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = [
        {"a.weight": np.ones((32, 16), np.float32), "a.bias": np.ones(32, np.float32)},
        {"time_embedder.weight": np.ones((8, 4), np.float32), "norm.weight": np.arange(4, dtype=np.float32)},
    ]
    for number, tensors in enumerate(shards, 1):
        save_file(tensors, tmp_path / f"model-{number:05}-of-00002.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("format", "nbytes"),
    [
        ("plain", 2 * (512 + 32 + 4) + 4 * 32),
        ("int8", 512 + 4 * 32 + 2 * (32 + 4) + 4 * 32),
        ("float8", 512 + 4 * 32 + 2 * (32 + 4) + 4 * 32),
    ],
)
def test_the_bytes_of_a_format_are_told_from_headers(
    component: Path, format: WeightFormat, nbytes: int
) -> None:
    assert stored_bytes(component_tensors(component, "model", half=True), format, kept=KEPT) == nbytes


def test_every_tensor_says_where_its_bytes_lie(component: Path) -> None:
    tensor = stored_tensors(component / "model-00002-of-00002.safetensors")["norm.weight"]
    data = tensor.path.read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
    assert (tensor.type, tensor.shape) == ("F32", (4,))
    assert np.array_equal(np.frombuffer(data, np.float32), [0, 1, 2, 3])
