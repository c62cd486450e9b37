"""tiny_wan as a browser runs it: what is written computes what torch does, in half the bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.tiny_wan.recipe.browser.export import MODEL, export, in_half, networks

pytestmark = pytest.mark.slow  # the libraries of which alone take seconds

#: It is written once for all runs: that takes a minute.
BUILT = Path(__file__).parents[2] / "out" / "try"


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return export(MODEL, BUILT)


def psnr_db(made: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    peak = float(wanted.max() - wanted.min())
    return float(10 * np.log10(peak**2 / np.mean((made - wanted) ** 2)))


def inputs_of(name: str, frames: int, height: int, width: int) -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(frames)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=drawn)

    latents = ((frames - 1) // 4 + 1, height // 8, width // 8)
    match name:
        case "text":
            ids = torch.randint(3, 1600, (1, 128), generator=drawn)
            return {"ids": ids, "mask": (torch.arange(128) < frames)[None].long()}
        case "encoder":
            return {"clip": noise(1, 3, frames, height, width).clamp(-1, 1)}
        case "decoder":
            return {"latents": noise(1, 24, *latents)}
    return {"latents": noise(1, 52, *latents), "timestep": torch.tensor([750.0]), "text": noise(1, 128, 128)}


@pytest.mark.long
@pytest.mark.parametrize("name", ["text", "encoder", "transformer", "decoder"])
def test_a_network_as_it_is_written_computes_what_torch_does(manifest: dict[str, Any], name: str) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        BUILT / manifest["files"][name]["name"], options, providers=["CPUExecutionProvider"]
    )
    network = networks(MODEL)[name]()
    for size in ((17, 128, 128), (9, 64, 96), (33, 32, 64)):
        inputs = inputs_of(name, *size)
        with torch.no_grad():
            wanted = network(*inputs.values()).numpy()
        (made,) = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        assert made.shape == wanted.shape
        assert psnr_db(made, wanted) >= 50, size


@pytest.mark.long
def test_everything_that_is_written_is_in_the_manifest_and_small_enough_for_a_first_visit(
    manifest: dict[str, Any],
) -> None:
    files = manifest["files"].values()
    there = {path.name: path.stat().st_size for path in BUILT.iterdir() if path.name != "manifest.json"}
    assert {file["name"]: file["bytes"] for file in files} == there
    assert all(file["sha256"].startswith(file["name"].split("-")[1].split(".")[0]) for file in files)
    assert sum(there.values()) < 45e6
    assert json.loads((BUILT / "manifest.json").read_text()) == manifest
    assert [step[0] for step in manifest["steps"]] == pytest.approx([1, 0.9, 0.75, 0.5], abs=1e-3)


def graph_of(**weights: NDArray[np.float32]) -> onnx.ModelProto:
    """The input times every weight."""
    nodes, at = [], "x"
    for name in weights:
        nodes.append(helper.make_node("Mul", [at, name], [f"{name}-times"]))
        at = f"{name}-times"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64]) for name in ("x", at)]
    stored = [numpy_helper.from_array(numbers, name) for name, numbers in weights.items()]
    return helper.make_model(
        helper.make_graph(nodes, "times", values[:1], values[1:], stored),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def test_weights_travel_in_half_the_bytes_where_nothing_is_lost_by_it() -> None:
    short = np.linspace(-2, 2, 64, dtype=np.float16).astype(np.float32)
    exact = np.linspace(-2, 2, 64, dtype=np.float32) / 3
    x = np.linspace(0, 1, 64, dtype=np.float32)
    graph = in_half(graph_of(short=short, exact=exact))
    types = [stored.data_type for stored in graph.graph.initializer]
    assert types == [TensorProto.FLOAT16, TensorProto.FLOAT]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(made, x * short * exact)
