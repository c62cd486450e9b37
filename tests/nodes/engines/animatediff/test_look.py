"""References by an IP-Adapter, against diffusers' pipelines with the same file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from farm.capabilities.engine_spec import RenderShape, need_bytes
from farm.errors import CannotRun
from farm.planning.render_task import RenderTask
from nodes.engines.animatediff.engine import AnimateDiff
from nodes.engines.animatediff.layout import DENOISER, IMAGE_ENCODER
from nodes.engines.animatediff.spec import animatediff_spec
from nodes.engines.common import placing
from nodes.engines.engine import RenderInputs, unheard
from nodes.engines.table import spec_of
from tests.nodes.engines.animatediff.conftest import FRAMES, stock_parts
from tests.nodes.engines.conftest import smooth_picture

pytestmark = pytest.mark.slow

WIDTH, SEEN = 32, 24
#: Of the tiny U-Net's attention to prompts, in the order of its processors, which the keys count.
LAYERS = (32, 32, 32, 64)


def _tensors(kind: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)

    def drawn(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    found = {
        f"ip_adapter.{2 * i + 1}.to_{part}_ip.weight": drawn(width, WIDTH)
        for i, width in enumerate(LAYERS)
        for part in "kv"
    }
    if kind == "plain":
        made = {"proj.weight": drawn(4 * WIDTH, SEEN), "proj.bias": drawn(4 * WIDTH)}
        made |= {"norm.weight": 1 + drawn(WIDTH), "norm.bias": drawn(WIDTH)}
    else:
        made = {"latents": drawn(1, 3, 64), "proj_in.weight": drawn(64, WIDTH), "proj_in.bias": drawn(64)}
        made |= {"proj_out.weight": drawn(WIDTH, 64), "proj_out.bias": drawn(WIDTH)}
        made |= {"norm_out.weight": 1 + drawn(WIDTH), "norm_out.bias": drawn(WIDTH)}
        for layer in (f"layers.{i}" for i in range(4)):
            for name in ("0.norm1", "0.norm2", "1.0"):
                made |= {f"{layer}.{name}.weight": 1 + drawn(64), f"{layer}.{name}.bias": drawn(64)}
            made |= {f"{layer}.0.to_q.weight": drawn(64, 64), f"{layer}.0.to_kv.weight": drawn(128, 64)}
            made |= {f"{layer}.0.to_out.weight": drawn(64, 64)}
            made |= {f"{layer}.1.1.weight": drawn(256, 64), f"{layer}.1.3.weight": drawn(64, 256)}
    return found | {f"image_proj.{name}": tensor for name, tensor in made.items()}


@pytest.fixture(scope="module", params=["plain", "plus"])
def folder(
    request: pytest.FixtureRequest, tiny_animatediff_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model without a SparseCtrl, with an IP-Adapter of one kind."""
    made = tmp_path_factory.mktemp("look") / "model"
    shutil.copytree(tiny_animatediff_folder, made, ignore=shutil.ignore_patterns("controlnet"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
            projection_dim=SEEN,
        )
        CLIPVisionModelWithProjection(config).save_pretrained(made / "image_encoder")
    (made / "ip_adapter").mkdir()
    save_file(_tensors(request.param), made / "ip_adapter" / "ip-adapter_sd15.safetensors")
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> AnimateDiff:
    return AnimateDiff(animatediff_spec(folder, model="tiny"), folder, device="cpu")


def _stock(folder: Path) -> Any:
    pipeline: Any = AnimateDiffPipeline(
        **stock_parts(folder),
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval(),
    )
    tensors = load_file(folder / "ip_adapter" / "ip-adapter_sd15.safetensors")
    state: dict[str, dict[str, torch.Tensor]] = {"ip_adapter": {}, "image_proj": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        state[part][rest] = tensor
    pipeline.load_ip_adapter(state, subfolder="", weight_name="")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_windows_that_look_like_references_equal_the_stock_pipelines(
    engine: AnimateDiff, folder: Path, task: RenderTask, guidance_scale: float
) -> None:
    engine.load("resident")
    pictures = [smooth_picture(n, 40, 56) for n in (1, 2)]
    noise, _ = engine.initial_latents(task)

    def ours(references: list[NDArray[np.uint8]]) -> torch.Tensor:
        conditioning = engine.encode(
            task.prompt,
            task.negative_prompt,
            known={},
            num_frames=FRAMES,
            guidance_scale=guidance_scale,
            references=references,
        )
        made: torch.Tensor = engine.denoise(noise, conditioning, num_inference_steps=3)
        return made

    stock = _stock(folder)
    is_plus = isinstance(stock.unet.encoder_hid_proj.image_projection_layers[0], IPAdapterPlusImageProjection)
    assert is_plus == (
        "latents" in str(load_file(folder / "ip_adapter" / "ip-adapter_sd15.safetensors").keys())
    )
    theirs = stock(
        prompt=task.prompt,
        negative_prompt=task.negative_prompt,
        height=task.height,
        width=task.width,
        num_frames=FRAMES,
        num_inference_steps=3,
        guidance_scale=guidance_scale,
        ip_adapter_image=[[Image.fromarray(each) for each in pictures]],
        latents=noise.transpose(0, 1)[None],
        output_type="latent",
    ).frames[0]
    made = ours(pictures)
    assert torch.allclose(made, theirs.transpose(0, 1), atol=1e-4)
    assert not torch.allclose(made, ours(pictures[:1]), atol=1e-2)
    assert not torch.allclose(made, ours([]), atol=1e-2)


@pytest.mark.parametrize("folder", ["plain"], indirect=True)
@pytest.mark.parametrize("rung", ["stream", "disk"])
def test_every_rung_looks_at_them_as_the_resident_one_does(
    engine: AnimateDiff, task: RenderTask, rung: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "RING_GROUP_BYTES", 8192)
    asked = RenderInputs(references=[smooth_picture(3, 48, 48)])
    engine.load("resident")
    expected = engine.render(task, asked, unheard).frames
    engine.load(rung)
    got = engine.render(task, asked, unheard).frames
    assert np.abs(expected.astype(int) - got).max() <= 2


def test_what_it_holds_is_counted_and_a_folder_that_does_not_fit_is_told(
    folder: Path,
    tiny_animatediff_folder: Path,
    tmp_path: Path,
    task: RenderTask,
    picture: Callable[[int], Any],
) -> None:
    spec, plain = spec_of(str(folder)), spec_of(str(tiny_animatediff_folder))
    assert "references" in spec.takes
    assert "references" not in plain.takes
    in_file = load_file(folder / "ip_adapter" / "ip-adapter_sd15.safetensors")
    within = sum(t.numel() for n, t in in_file.items() if n.startswith("ip_adapter."))
    without = animatediff_spec(
        shutil.copytree(folder, tmp_path / "none", ignore=shutil.ignore_patterns("ip_adapter")), model="none"
    )
    assert spec.component_bytes[DENOISER] - without.component_bytes[DENOISER] == 2 * within
    engine = AnimateDiff(spec.on("cpu"), folder, device="cpu")
    engine.load("resident")
    held = engine._held.placed.model.components[IMAGE_ENCODER].parameters()
    counted = spec.on("cpu").component_bytes[IMAGE_ENCODER]
    assert counted == pytest.approx(sum(p.nbytes for p in held), rel=0.02)
    shape = RenderShape(num_frames=4, height=32, width=48, num_inference_steps=3, guided=True)
    cpu, bare = spec.on("cpu"), without.on("cpu")
    assert need_bytes(cpu, cpu.rungs[0], shape) > need_bytes(bare, bare.rungs[0], shape) + counted
    other = AnimateDiff(plain.on("cpu"), tiny_animatediff_folder, device="cpu")
    other.load("resident")
    with pytest.raises(ValueError, match=r"1 references are given, and .* takes none: put an IP-Adapter"):
        other.render(task, RenderInputs(references=[picture(0)]), unheard)
    wrong = shutil.copytree(folder, tmp_path / "wrong")
    file = wrong / "ip_adapter" / "ip-adapter_sd15.safetensors"
    save_file({n: t.repeat(1, 2) if n.startswith("ip_adapter.") else t for n, t in in_file.items()}, file)
    with pytest.raises(CannotRun, match=r"of \[64\] numbers a token, expected 32"):
        animatediff_spec(wrong, model="wrong")
    shutil.rmtree(wrong / "image_encoder")
    with pytest.raises(CannotRun, match=r"lacks image_encoder/config\.json"):
        animatediff_spec(wrong, model="wrong")
