"""The engine on a CPU: the same frames however many cores it has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import I2VGenXLUNet
from numpy.typing import NDArray

from farm.capabilities.engine_spec import EngineSpec
from farm.planning.render_task import RenderTask
from nodes.engines.engine import RenderInputs
from nodes.engines.i2vgen_xl.engine import I2VGenXL
from nodes.engines.i2vgen_xl.one_row import OncePerInput, prepare_for_one_row

pytestmark = pytest.mark.slow


def test_a_render_gives_the_same_bytes_with_any_number_of_cores(
    tiny_spec: EngineSpec, tiny_i2vgen_xl_folder: Path, tiny_image: NDArray[np.uint8]
) -> None:
    task = RenderTask(
        model="tiny",
        prompt="the cat turns",
        negative_prompt="blurry",
        frame_indices=tuple(range(5)),
        shot_start=0,
        shot_end=5,
        height=32,
        width=48,
        fps=8,
        num_inference_steps=3,
        strength=0.7,
        guidance_scale=4.0,
        seed=21,
        handover_index=4,
    )
    inputs = RenderInputs(video=np.stack([np.roll(tiny_image, f, axis=1) for f in range(5)]))
    made = []
    for cores in (1, 2, 5):
        engine = I2VGenXL(tiny_spec.on("cpu"), source=tiny_i2vgen_xl_folder, device="cpu", cpu_threads=cores)
        engine.load("resident")
        made.append(engine.render(task, inputs, lambda *_: None))
    assert all(np.array_equal(each.frames, made[0].frames) for each in made)
    assert all(np.array_equal(each.handover["latent"], made[0].handover["latent"]) for each in made)


def _row(number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    shapes = {
        "sample": (1, 4, 3, 8, 8),
        "image_latents": (1, 4, 3, 8, 8),
        "image_embeddings": (1, 1, 32),
        "encoder_hidden_states": (1, 77, 32),
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**tensors, "timestep": torch.tensor(500), "fps": torch.tensor([8.0])}


@torch.no_grad()
def test_a_unet_for_one_row_gives_the_same_numbers_for_every_image_and_prompt(
    tiny_i2vgen_xl_folder: Path,
) -> None:
    unet: Any = I2VGenXLUNet.from_pretrained(tiny_i2vgen_xl_folder / "unet")  # type: ignore[no-untyped-call]
    rows = [_row(1), _row(2), _row(1)]
    rows += [_row(1) | {"encoder_hidden_states": _row(3)["encoder_hidden_states"]}]
    expected = [unet(**row).sample for row in rows]
    prepare_for_one_row(unet)
    for row, numbers in zip(rows, expected, strict=True):
        assert torch.allclose(unet(**row).sample, numbers, atol=1e-6)


def test_a_layer_whose_input_stays_the_same_is_computed_once() -> None:
    layer = torch.nn.Linear(3, 3)
    calls: list[int] = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    once = OncePerInput(layer)
    first, same, other = torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3)
    assert torch.equal(once(first), once(same))
    assert len(calls) == 1
    assert torch.equal(once(other), layer(other))
    assert torch.equal(once(first), layer(first))
    assert len(calls) == 5


def test_two_workers_of_one_process_load_the_model_at_the_same_time(
    tiny_i2vgen_xl_folder: Path, tiny_spec: EngineSpec
) -> None:
    def loaded(_: int) -> bool:
        engine = I2VGenXL(tiny_spec.on("cpu"), source=tiny_i2vgen_xl_folder, device="cpu")
        engine.load("resident")
        components = engine._loaded().model.components.values()
        return not any(weight.is_meta for part in components for weight in part.parameters())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(loaded, range(4)))
