from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from farm.capabilities.engine_spec import Rung
from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun
from farm.planning.render_task import RenderTask
from nodes.engines.common import placing
from nodes.engines.engine import Cancelled, Rendered, RenderInputs, TextEngine
from nodes.engines.folders import WeightSource
from nodes.engines.ltx.engine import LTXVideo
from nodes.engines.ltx.spec import ltx_spec
from nodes.engines.table import create_engine
from tests.nodes.engines.ltx.conftest import FRAMES, HEIGHT, WIDTH, write_tiny_ltx

pytestmark = pytest.mark.slow

Picture = Callable[[int], NDArray[np.uint8]]


def _render(engine: LTXVideo, task: RenderTask, inputs: RenderInputs, **changes: Any) -> Rendered:
    return engine.render(task.model_copy(update=changes), inputs, lambda phase, done, total: None)


def _psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Decibels, over the range of the first."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(np.ptp(one.astype(np.float64)) ** 2 / error))


@pytest.mark.parametrize("rung", ["evict", "stream", "disk"])
def test_every_rung_renders_what_the_resident_one_does(
    ltx: LTXVideo, task: RenderTask, picture: Picture, rung: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small groups: the layers of a tiny model pass through the ring one by one too.
    monkeypatch.setattr(placing, "RING_GROUP_BYTES", 8192)
    inputs = RenderInputs(image=picture(0), last_image=picture(3))
    changes = {"handover_index": 8, "handover_latents": 2}
    expected = _render(ltx, task, inputs, **changes)
    ltx.load(rung)
    rings = ltx._held.placed._rings
    assert [len(ring._groups) > 10 for ring in rings.values()] == [True] * (rung in ("stream", "disk"))
    got = _render(ltx, task, inputs, **changes)
    assert _psnr(expected.frames, got.frames) >= 50
    assert _psnr(expected.handover["latents"], got.handover["latents"]) >= 50
    assert [each.name for each in ltx.spec.rungs] == ["resident", "evict", "stream", "disk"]


@pytest.mark.parametrize("pipeline", ["LTXPipeline", "LTXImageToVideoPipeline"])
def test_a_folder_is_rendered_by_the_ordinary_path_whatever_its_pipeline_is_called(
    tmp_path: Path, task: RenderTask, picture: Picture, pipeline: str
) -> None:
    folder = tmp_path / "LTX-Video-2B-0.9.8-distilled"
    write_tiny_ltx(folder, pipeline=pipeline)
    worker = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=8 * GIB)
    engine = create_engine(str(folder), worker)
    assert isinstance(engine, LTXVideo)
    assert (engine.spec.default_steps, engine.spec.default_guidance_scale) == (8, 1.0)
    engine.load("resident")
    frames = _render(engine, task, RenderInputs(image=picture(1)), num_inference_steps=2).frames
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 5


def test_prompts_are_encoded_once_as_data_by_the_encoder_alone(
    ltx: LTXVideo, task: RenderTask, picture: Picture, tiny_ltx_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(ltx, TextEngine)
    assert ltx.spec.text_components == ("text_encoder",)
    expected = _render(ltx, task, RenderInputs(image=picture(0))).frames
    text = LTXVideo(ltx.spec, tiny_ltx_folder, device="cpu").encode_prompts(task, "stream")
    assert {name: array.shape for name, array in text.items()} == {
        "prompt_embeds": (15, 24),
        "negative_embeds": (8, 24),
    }
    other = LTXVideo(ltx.spec, tiny_ltx_folder, device="cpu")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the encoder was read")

    monkeypatch.setattr(other._text, "_read", never)
    other.load("resident")
    assert np.array_equal(_render(other, task, RenderInputs(image=picture(0), text=text)).frames, expected)
    with pytest.raises(ValueError, match="text has prompt_embeds, expected negative_embeds"):
        _render(other, task, RenderInputs(text={"prompt_embeds": text["prompt_embeds"]}))
    with pytest.raises(ValueError, match=r"prompt_embeds is \(3, 5\), expected tokens x 24"):
        _render(other, task, RenderInputs(text={**text, "prompt_embeds": np.zeros((3, 5), np.float32)}))


def test_a_window_that_takes_latents_over_begins_with_them(
    ltx: LTXVideo, task: RenderTask, picture: Picture
) -> None:
    first = _render(ltx, task, RenderInputs(image=picture(0)), handover_index=8, handover_latents=2)
    assert first.handover["latents"].shape == (8, 2, 2, 3)
    assert np.array_equal(first.handover["image"], first.frames[8])
    inputs = RenderInputs(image=np.asarray(first.handover["image"], np.uint8), handover=first.handover)
    second = task.model_copy(update={"frame_indices": tuple(range(8, 8 + FRAMES))})
    window, *_ = ltx.starting_window(second, ltx._given(second, inputs), None)
    own = window.own_latents(window.tokens).numpy()
    assert np.array_equal(own[:, 1:3], first.handover["latents"])
    assert window.strengths == (1.0, 1.0, 1.0, 0.0)
    # What the windows share looks alike where the first frame's latent of its own is past.
    shared = _render(ltx, second, inputs).frames[9:17].astype(int)
    assert np.abs(shared - first.frames[17:25]).mean() < np.abs(shared - first.frames[:8]).mean()


def test_windows_that_overlap_share_the_noise_of_the_latents_they_share(
    ltx: LTXVideo, task: RenderTask
) -> None:
    left, *_ = ltx.starting_window(task, [], None)
    moved = task.model_copy(update={"frame_indices": tuple(range(8, 8 + FRAMES))})
    right, *_ = ltx.starting_window(moved, [], None)
    ours, theirs = left.own_latents(left.tokens), right.own_latents(right.tokens)
    assert torch.equal(ours[:, 2:], theirs[:, 1:-1])
    assert not torch.equal(ours[:, 1], theirs[:, 0])


def test_given_frames_stay_what_they_are_and_others_follow_them(
    ltx: LTXVideo, task: RenderTask, picture: Picture
) -> None:
    plain = _render(ltx, task, RenderInputs(image=picture(0)))
    clip = {16 + i: picture(7) for i in range(9)}
    for inputs in (
        RenderInputs(image=picture(0), last_image=picture(7)),
        RenderInputs(image=picture(0), known={8: picture(7)}),
        RenderInputs(image=picture(0), known=clip),
        RenderInputs(known={i: picture(0) for i in range(9)}),
        RenderInputs(),
    ):
        assert not np.array_equal(_render(ltx, task, inputs).frames, plain.frames)


def test_an_input_video_is_rendered_over_the_more_the_stronger(
    ltx: LTXVideo, task: RenderTask, picture: Picture
) -> None:
    video = np.stack([picture(i // 8) for i in range(FRAMES)])
    clean = ltx.encode_frames(video)
    kept = []
    for strength in (0.25, 1.0):
        changed = task.model_copy(update={"strength": strength})
        window, _, steps = ltx.starting_window(changed, [], clean)
        assert len(steps) == 4 * strength
        kept.append(float((window.own_latents(window.tokens) - clean).abs().mean()))
        assert _render(ltx, changed, RenderInputs(video=video)).frames.shape == video.shape
    assert kept[0] < kept[1]


def test_every_step_and_the_decoded_frames_are_reported_and_a_window_can_be_cancelled_at_any(
    ltx: LTXVideo, task: RenderTask
) -> None:
    reports: list[tuple[str, int, int]] = []
    ltx.render(task, RenderInputs(), lambda *report: reports.append(report))
    assert [r for r in reports if r[0] == "denoise"] == [("denoise", i, 4) for i in range(5)]
    decoded = [r for r in reports if r[0] == "decode"]
    assert decoded[0] == ("decode", 0, FRAMES)
    assert decoded[-1] == ("decode", FRAMES, FRAMES)
    assert len(decoded) > 2
    for phase, at in (("denoise", 2), ("decode", decoded[2][1])):

        def stop(*report: Any, wanted: tuple[str, int] = (phase, at)) -> None:
            if report[:2] == wanted:
                raise Cancelled

        with pytest.raises(Cancelled):
            ltx.render(task, RenderInputs(), stop)


def test_values_that_are_not_finite_stop_the_window(
    ltx: LTXVideo, task: RenderTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the class: an engine that has rendered nothing yet places another one.
    transformer = type(ltx._held.placed.model.transformer)
    monkeypatch.setattr(transformer, "forward", lambda _, tokens, *__: tokens * float("nan"))
    with pytest.raises(FloatingPointError, match=r"step 1 of 4 .* not finite .* or a LoRA's"):
        _render(ltx, task, RenderInputs())


@pytest.mark.parametrize(
    ("changes", "inputs", "words"),
    [
        ({"width": 80}, {}, "height x width is 64x80: tiny needs multiples of 32"),
        (
            {"frame_indices": tuple(range(24))},
            {},
            r"num_frames is 24: tiny renders 9 to 257 in the form 8k\+1",
        ),
        ({"strength": 0.5}, {}, "strength is 0.5 and the input video is missing"),
        ({}, {"known": {12: 1}}, "frames are given at 12: tiny takes single frames at multiples of 8"),
        ({}, {"known": {8: 1, 9: 1, 10: 1}}, r"at 8 to 10: .* clips of 8k\+1 frames that start there"),
        ({}, {"known": {32: 1}}, "a frame is given at 32: the window has 0 to 24"),
        ({"handover_index": 20, "handover_latents": 1}, {}, "handover_latents is 1 behind frame 20"),
        ({"handover_index": 24, "handover_latents": 1}, {}, "handover_latents is 1 behind frame 24"),
    ],
)
def test_what_cannot_be_rendered_is_refused_by_name(
    ltx: LTXVideo,
    task: RenderTask,
    picture: Picture,
    changes: dict[str, Any],
    inputs: dict[str, Any],
    words: str,
) -> None:
    known = {at: picture(n) for at, n in inputs.get("known", {}).items()}
    with pytest.raises(ValueError, match=words):
        _render(ltx, task, RenderInputs(known=known), **changes)


def test_latents_that_do_not_fit_the_window_are_refused(
    ltx: LTXVideo, task: RenderTask, picture: Picture
) -> None:
    latents = np.zeros((8, 1, 2, 3), np.float32)
    for given, words in (
        ({"handover": {"latents": latents}}, "handover has latents and image is missing"),
        (
            {"image": picture(0), "handover": {"latents": np.zeros((8, 4, 2, 3), np.float32)}},
            r"handover latents are \(8, 4, 2, 3\), expected channels x 1 to 3 x 2 x 3",
        ),
        (
            {"image": picture(0), "handover": {"latents": latents}, "known": {8: picture(1)}},
            "frames are given where the window before handed over latents",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            _render(ltx, task, RenderInputs(**given))


def test_the_transformer_is_read_from_a_single_file_by_its_authors_names(
    ltx: LTXVideo, task: RenderTask, picture: Picture, tiny_ltx_folder: Path, tmp_path: Path
) -> None:
    inputs = RenderInputs(image=picture(0), text=ltx.encode_prompts(task, "resident"))
    ltx.load("resident")
    expected = _render(ltx, task, inputs).frames
    named = {"vae.decoder.conv_in.conv.bias": torch.zeros(3)}
    for path in (tiny_ltx_folder / "transformer").glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            for theirs, ours in (("patchify_proj", "proj_in"), ("adaln_single", "time_embed")):
                name = name.replace(ours, theirs)
            name = name.replace("norm_q", "q_norm").replace("norm_k", "k_norm")
            named[f"model.diffusion_model.{name}"] = tensor
    save_file(named, tmp_path / "ltxv.safetensors")
    folder = shutil.copytree(tiny_ltx_folder, tmp_path / "base")
    for path in (folder / "transformer").glob("*-of-*.safetensors"):
        path.write_bytes(b"")
    weights = {"transformer": WeightSource(file=tmp_path / "ltxv.safetensors")}
    engine = LTXVideo(ltx.spec, folder, device="cpu", weights=weights)
    engine.load("resident")
    assert np.array_equal(_render(engine, task, inputs).frames, expected)


def test_every_rung_of_a_format_renders_what_that_format_does_resident(
    ltx: LTXVideo, task: RenderTask, picture: Picture, tiny_ltx_folder: Path, tmp_path: Path
) -> None:
    inputs = RenderInputs(image=picture(0), text=ltx.encode_prompts(task, "resident"))
    folder = shutil.copytree(tiny_ltx_folder, tmp_path / "copy")
    engine = LTXVideo(ltx.spec, folder, device="cpu", weights={"transformer": WeightSource(format="int8")})
    rendered = {}
    for rung in ltx.spec.rungs:
        engine.load(rung.name)
        rendered[rung.name] = _render(engine, task, inputs).frames
    assert all(_psnr(rendered["resident"], frames) >= 50 for frames in rendered.values())
    ltx.load("resident")
    assert 20 < _psnr(_render(ltx, task, inputs).frames, rendered["resident"]) < 60


def test_a_damaged_folder_and_one_that_this_engine_does_not_run_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ltx"
    write_tiny_ltx(folder)
    spec = ltx_spec(folder, model="tiny")
    shard = next((folder / "transformer").glob("*-00001-of-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(CannotRun, match=r"transformer/.*-00001-of-.*: the download was cut short"):
        LTXVideo(spec, folder, device="cpu").load("resident")
    shard.unlink()
    with pytest.raises(CannotRun, match=r"is not a complete LTX-Video folder, it lacks transformer/.*-00001"):
        LTXVideo(spec, folder, device="cpu").load("resident")
