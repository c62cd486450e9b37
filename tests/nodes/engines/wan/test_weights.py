"""A Wan with other weights than its folder's, or kept otherwise."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import gguf
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import save_file

from farm.capabilities import GIB, LoraFile, Weights, Worker, host_need_bytes
from farm.errors import CannotRun, InvalidInput
from farm.planning import plan_over
from farm.request import JobRequest, MediaInfo
from farm.running.cluster import Blob, Finished, Order
from nodes.engines.common import placing
from nodes.engines.engine import RenderInputs
from nodes.engines.folders import WeightFormat, WeightSource, sources_of
from nodes.engines.table import create_engine, spec_of
from nodes.engines.wan.engine import Wan
from nodes.engines.wan.layout import KEPT
from nodes.engines.wan.spec import wan_spec
from nodes.engines.weights import file_span, kept_by
from nodes.work.worker import WorkerBody
from tests.nodes.engines.wan.tiny import picture, window

pytestmark = pytest.mark.slow

WanFolder = Callable[[str], Path]

WORKER = Worker(id="a/0", node="a", kind="cpu", device_name="a CPU", vram_bytes=4 * GIB)


@cache
def text_of(folder: Path) -> Mapping[str, np.ndarray]:
    """The prompts of a window: other weights of the experts leave them as they are."""
    engine = Wan(wan_spec(folder, model="tiny a14b"), source=folder, device="cpu")
    return engine.encode_prompts(window("a14b"), "resident")


def latents(folder: Path, weights: Mapping[str, WeightSource], rung: Any = "resident") -> torch.Tensor:
    """What a window is denoised to, (C, L, h, w)."""
    engine = Wan(wan_spec(folder, model="tiny a14b"), source=folder, device="cpu", weights=weights)
    engine.load(rung)
    task = window("a14b", handover_index=0, handover_latents=2)
    inputs = RenderInputs(image=picture("a14b"), text=text_of(folder))
    made = engine.render(task, inputs, lambda phase, done, total: None)
    return torch.from_numpy(np.asarray(made.handover["latents"]))


def off(made: torch.Tensor, true: torch.Tensor) -> float:
    return float((made - true).square().mean().sqrt() / true.square().mean().sqrt())


@pytest.fixture(scope="module")
def plain(wan_folder: WanFolder) -> torch.Tensor:
    return latents(wan_folder("a14b"), {})


@pytest.fixture(scope="module")
def resident(wan_folder: WanFolder) -> Callable[[WeightFormat], torch.Tensor]:
    """``resident("int8")``: with both experts in that format, at the first rung."""

    @cache
    def made(format: WeightFormat) -> torch.Tensor:
        return latents(wan_folder("a14b"), in_format(format))

    return made


def in_format(format: WeightFormat) -> dict[str, WeightSource]:
    return {name: WeightSource(format=format) for name in ("transformer", "transformer_2")}


@pytest.fixture
def lora(tmp_path: Path) -> LoraFile:
    """A distinct change of one layer, in the names of Wan's authors."""
    torch.manual_seed(1)
    layer = "diffusion_model.blocks.1.ffn.0"
    pair = {f"{layer}.lora_down.weight": torch.randn(2, 24), f"{layer}.lora_up.weight": torch.randn(32, 2)}
    save_file(pair, tmp_path / "lora.safetensors")
    return LoraFile(path=tmp_path / "lora.safetensors")


@pytest.mark.parametrize("format", ["int8", "float8"])
@pytest.mark.parametrize("rung", ["resident", "stream", "disk"])
def test_every_rung_of_a_format_renders_what_the_resident_one_does_and_nearly_what_16_bits_do(
    wan_folder: WanFolder,
    plain: torch.Tensor,
    resident: Callable[[WeightFormat], torch.Tensor],
    format: WeightFormat,
    rung: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = resident(format)
    if rung == "resident":
        assert 0 < off(whole, plain) < 0.05
        return
    monkeypatch.setattr(placing, "RING_GROUP_BYTES", 1024)
    made = latents(wan_folder("a14b"), in_format(format), rung)
    assert 0 < off(made, plain) < 0.05
    assert off(made, whole) < 10 ** (-50 / 20)


def test_a_lora_changes_the_expert_it_is_for(
    wan_folder: WanFolder, plain: torch.Tensor, lora: LoraFile
) -> None:
    folder = wan_folder("a14b")
    names = ("transformer", "transformer_2")
    each = [latents(folder, {name: WeightSource(loras=(lora,))}) for name in names]
    assert off(each[0], plain) > 1e-3
    assert off(each[1], plain) > 1e-3
    assert off(each[0], each[1]) > 1e-3
    weak = WeightSource(loras=(LoraFile(path=lora.path, scale=0.0),))
    assert off(latents(folder, {"transformer": weak}), plain) < 1e-5


def write_gguf(component: Path, path: Path) -> Path:
    """A transformer as GGUF, in 8 bits where its rows fill blocks."""
    writer = gguf.GGUFWriter(path, "wan")
    for name, tensor in WanTransformer3DModel.from_pretrained(component).state_dict().items():
        fits = tensor.ndim == 2 and tensor.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0 if fits else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_takes_an_experts_place(
    wan_folder: WanFolder, plain: torch.Tensor, lora: LoraFile, tmp_path: Path
) -> None:
    folder = wan_folder("a14b")
    path = write_gguf(folder / "transformer_2", tmp_path / "low.gguf")
    assert 0 < off(latents(folder, {"transformer_2": WeightSource(file=path)}), plain) < 0.05
    high = latents(folder, {"transformer": WeightSource(file=path)})  # the other expert's weights
    assert off(high, plain) > 0.05
    assert off(latents(folder, {"transformer_2": WeightSource(file=path, loras=(lora,))}), plain) > 1e-3


def test_weights_wait_in_their_files_at_the_disk_rung_and_need_no_memory_there(
    wan_folder: WanFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.engines.wan.spec._OWN_TASK_BYTES", 0)  # as with a large encoder
    folder = wan_folder("a14b")
    spec = wan_spec(folder, model="tiny a14b")
    needs = {rung.name: host_need_bytes(spec, rung) for rung in spec.rungs}
    texts = {rung.name: host_need_bytes(spec, rung, text=True) for rung in spec.rungs}
    assert needs["stream"] > 2 * spec.component_bytes["transformer"]
    assert needs["disk"] == spec.component_bytes["vae"]
    assert (texts["stream"] > 0, texts["disk"]) == (True, 0)
    engine = Wan(spec, source=folder, device="cpu", dtype=torch.bfloat16)
    engine.load("stream")  # into memory: the files are in float32
    assert not any(layers_in_files(engine))
    engine.load("disk")
    assert all(layers_in_files(engine))
    assert len(list((folder / "farm_weights" / "transformer_2").glob("plain-bfloat16-*"))) == 1
    task = window("a14b")
    made = engine.render(task, RenderInputs(image=picture("a14b")), lambda phase, done, total: None)
    assert len(made.frames) == task.num_frames
    assert all(layers_in_files(engine))


def layers_in_files(engine: Wan) -> list[bool]:
    experts = [engine._held.placed.model.components[name] for name in ("transformer", "transformer_2")]
    return [file_span(expert.stock.blocks[0].ffn.net[2].weight) is not None for expert in experts]


@pytest.fixture
def base(wan_folder: WanFolder, tmp_path: Path) -> Path:
    """A base folder: everything but the weights of the experts."""
    folder = tmp_path / "base"
    shutil.copytree(wan_folder("a14b"), folder, ignore=shutil.ignore_patterns("farm_weights"))
    for expert in ("transformer", "transformer_2"):
        for path in (folder / expert).glob("*.safetensors*"):
            path.unlink()
    return folder


def test_a_job_renders_from_gguf_files_and_a_lora_beside_a_base_folder(
    wan_folder: WanFolder, base: Path, lora: LoraFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELFARM_WEIGHTS", str(tmp_path))
    with pytest.raises(CannotRun, match="lacks transformer/diffusion_pytorch_model"):
        spec_of(str(base))
    for part, expert in (("high", "transformer"), ("low", "transformer_2")):
        write_gguf(wan_folder("a14b") / expert, tmp_path / f"{part}.gguf")
    asked = {
        "model": str(base),
        "weights": ("high=high.gguf", "low=low.gguf"),
        "num_frames": 9,
        "window_frames": 9,
        "width": 48,
        "height": 32,
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
    }
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), picture("a14b"))
    media = MediaInfo(
        kind="image",
        width=48,
        height=32,
        num_frames=1,
        sha256=hashlib.sha256(photo.read_bytes()).hexdigest(),
        path=photo,
    )
    plain, weak = (
        JobRequest(inputs=(media,), **asked, loras=loras)  # type: ignore[arg-type]
        for loras in ((), (f"high={lora.path.name}:0.5",))
    )
    frames = [rendered(plain, tmp_path), rendered(weak, tmp_path), rendered(plain, tmp_path)]
    assert frames[0] == frames[2]
    assert frames[0] != frames[1]
    (tmp_path / "low.gguf").unlink()
    with pytest.raises(CannotRun, match=r"low.gguf is not in .* on this machine: copy it there"):
        spec_of(str(base), plain.chosen_weights)


def rendered(request: JobRequest, folder: Path) -> str:
    """The hash of what a worker makes of the job's only window, its prompts first."""
    spec = spec_of(request.model, request.chosen_weights)
    made = plan_over(request, spec, [WORKER])
    body = WorkerBody(WORKER, create_engine)
    image = Blob(sha256=request.inputs[0].sha256, path=request.inputs[0].path)
    ends: list[Any] = []
    inputs: dict[str, Blob] = {}
    for segment in made.segments:
        order = Order(
            attempt_id=f"job/{segment.id}/1",
            worker_id=WORKER.id,
            task=made.render_task(segment),
            rung="resident",
            need_bytes=0,
            inputs=dict(inputs) if segment.level == "text" else {"image": image, **inputs},
        )
        body.run(order, ends.append)
        body.settle()
        assert isinstance(ends[-1], Finished), ends[-1]
        text = folder / f"{ends[-1].content_sha256}.safetensors"
        text.write_bytes(ends[-1].content)
        inputs = {"text": Blob(sha256=ends[-1].content_sha256, path=text)}
    return str(ends[-1].frames_sha256)


@pytest.mark.parametrize("kind", ["bf16", "int8", "float8", "gguf"])
def test_the_spec_counts_the_bytes_that_experts_hold(
    wan_folder: WanFolder, kind: str, tmp_path: Path
) -> None:
    folder = wan_folder("a14b")
    chosen: dict[str, Any] = {"format": kind}
    if kind == "gguf":
        path = write_gguf(folder / "transformer", tmp_path / "a.gguf")
        chosen = {"files": [f"high={path}", f"low={path}"]}
    weights = Weights.model_validate(chosen)
    spec = wan_spec(folder, model="tiny a14b", weights=weights).on("cpu")
    sources = sources_of(weights, ("transformer", "transformer_2"), "tiny a14b")
    engine = Wan(spec, source=folder, device="cpu", weights=sources)
    engine.load("resident")
    for name in sources:
        held = engine._held.placed.model.components[name].parameters()
        assert spec.component_bytes[name] == sum(each.numel() * each.element_size() for each in held)


def test_what_the_class_keeps_out_of_fewer_bits_is_known_without_it() -> None:
    for kind in (WanTransformer3DModel, WanVACETransformer3DModel):
        kept = kept_by(kind, torch.bfloat16)
        assert {part.removeprefix("vace_") for part in kept.plain if "." not in part} <= {
            *KEPT["transformer"].plain
        }
        assert {*kept.float32} <= {*KEPT["transformer"].float32}


def test_a_lora_of_another_model_is_refused_before_anything_is_loaded(
    wan_folder: WanFolder, tmp_path: Path
) -> None:
    layer = "diffusion_model.blocks.1.ffn.0"
    pair = {f"{layer}.lora_down.weight": torch.randn(2, 25), f"{layer}.lora_up.weight": torch.randn(32, 2)}
    save_file(pair, tmp_path / "other.safetensors")
    weights = Weights(loras=(LoraFile(path=tmp_path / "other.safetensors"),))
    with pytest.raises(InvalidInput, match=r"changes a matrix of 32x25 .*it was made for another model"):
        spec_of(str(wan_folder("a14b")), weights)
