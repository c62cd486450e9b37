from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from numpy.typing import NDArray
from PIL import Image

from benchmarks.held_out import photograph
from farm.capabilities.engine_spec import Rung
from nodes.engines.common import placing
from nodes.engines.engine import Cancelled, Rendered, RenderInputs, TextEngine
from nodes.engines.tokens import Pointwise, runs_of
from nodes.engines.wan import condition
from nodes.engines.wan.by_level import ByLevel
from nodes.engines.wan.engine import Wan
from nodes.engines.wan.spec import wan_spec
from tests.nodes.engines.wan.tiny import FRAMES, KINDS, SIZES, STEPS, TEXT_WIDTH, picture, window

pytestmark = pytest.mark.slow

WanFolder = Callable[[str], Path]
WanEngine = Callable[..., Any]
REAL = Path(__file__).parents[4] / "models" / "tiny_wan"


def _render(engine: Wan, kind: str, inputs: RenderInputs, **changes: Any) -> Rendered:
    return engine.render(window(kind, **changes), inputs, lambda phase, done, total: None)


def _db(made: NDArray[np.uint8], true: NDArray[np.uint8]) -> float:
    error = np.mean((made.astype(np.float64) - true) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.fixture(scope="module")
def real() -> Wan:
    """``tiny_wan`` with its trained weights."""
    engine = Wan(wan_spec(REAL, model="tiny_wan").on("cpu"), source=REAL, device="cpu")
    engine.load("resident")
    return engine


SIDE = 128


def _photograph(shift: int) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3): a cup of coffee, from ``shift`` pixels further to the right."""
    whole = Image.fromarray(photograph("coffee")).resize((SIDE * 3 // 2, SIDE), Image.Resampling.BOX)
    return np.asarray(whole)[:, 20 + shift : 20 + shift + SIDE].copy()


#: What ``tiny_wan`` is asked for.
ASKED: dict[str, Any] = {
    "height": SIDE,
    "width": SIDE,
    "fps": 8,
    "prompt": "the camera pans right slowly",
    "guidance_scale": 1.0,
}


def test_given_frames_come_back_and_those_between_move(real: Wan) -> None:
    first, last = _photograph(0), _photograph(8)
    from_first = _render(real, "a14b", RenderInputs(image=first), **ASKED).frames
    assert from_first.shape == (9, SIDE, SIDE, 3)
    assert _db(from_first[0], first) > 25
    both = _render(real, "a14b", RenderInputs(image=first, last_image=last), **ASKED).frames
    assert _db(both[0], first) > 25
    assert _db(both[-1], last) > 25
    half_way = _photograph(4)
    assert _db(both[4], half_way) > max(_db(both[0], half_way), _db(both[-1], half_way)) + 1


@pytest.fixture(scope="module")
def resident(wan_engine: WanEngine) -> Callable[[str], NDArray[np.uint8]]:
    """``resident("ti2v")``: the frames of its window at the first rung."""

    @cache
    def frames(kind: str) -> NDArray[np.uint8]:
        return _render(wan_engine(kind), kind, RenderInputs(image=picture(kind))).frames

    return frames


@pytest.mark.parametrize(
    ("kind", "rung"),
    [("a14b", "chunk"), ("a14b", "stream"), ("a14b", "disk"), ("ti2v", "stream"), ("vace", "disk")],
)
def test_every_rung_renders_what_the_resident_one_does(
    wan_engine: WanEngine,
    resident: Callable[[str], NDArray[np.uint8]],
    kind: str,
    rung: Rung,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = resident(kind)
    # Small groups: every layer passes through the ring by itself, as those of the published models do.
    monkeypatch.setattr(placing, "RING_GROUP_BYTES", 1024)
    wan_engine(kind).unload()  # it may have been placed in large groups
    engine = wan_engine(kind, rung)
    engine._last_key = None  # the prompt is encoded anew
    assert _db(_render(engine, kind, RenderInputs(image=picture(kind))).frames, expected) > 50
    engine.unload()  # with its rings of small groups


def test_one_expert_is_on_the_card_at_a_time(wan_engine: WanEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = wan_engine("a14b")
    placed = engine._held.placed
    assert "transformer" not in placed.placement.resident(placed.parts)
    order: list[str] = []
    on_card = type(placed).on_card
    monkeypatch.setattr(
        type(placed), "on_card", lambda self, name: (order.append(name), on_card(self, name))[1]
    )
    _render(engine, "a14b", RenderInputs(image=picture("a14b")))
    assert [name for name in order if name.startswith("transformer")] == ["transformer", "transformer_2"]


def test_a_cpu_gives_the_same_frames_with_any_number_of_cores(wan_folder: WanFolder) -> None:
    folder = wan_folder("a14b")
    spec = wan_spec(folder, model="tiny").on("cpu")
    made = []
    for cores, rung in ((1, "resident"), (2, "resident"), (2, "cfg_split")):
        engine = Wan(spec, source=folder, device="cpu", cpu_threads=cores)
        engine.load(rung)
        made.append(_render(engine, "a14b", RenderInputs(image=picture("a14b"))).frames)
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


def test_the_flags_of_given_frames_follow_the_frames_of_each_latent(wan_engine: WanEngine) -> None:
    height, width = SIZES["a14b"]
    known = {place: picture("a14b", place) for place in (0, 2, 5, 8)}
    given = wan_engine("a14b").condition(known, num_frames=FRAMES, height=height, width=width)
    assert given.channels is not None
    assert given.channels[:4, :, 0, 0].tolist() == [[1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_latents_taken_over_stand_where_the_window_before_had_them(wan_engine: WanEngine, kind: str) -> None:
    engine = wan_engine(kind)
    made = _render(engine, kind, RenderInputs(image=picture(kind)), handover_index=4, handover_latents=1)
    assert np.array_equal(made.handover["image"], made.frames[4])
    latents = made.handover["latents"]
    task = window(kind, frame_indices=tuple(range(4, 13)), shot_end=13)
    given = engine.condition(
        {0: made.frames[4]}, num_frames=FRAMES, height=task.height, width=task.width, prefix=latents
    )
    if kind == "ti2v":
        clean, free = given.in_place
        assert np.array_equal(clean[:, 1:2].numpy(), latents)
        assert free.flatten().tolist() == [0, 0, 1]
    elif kind == "a14b":
        assert np.array_equal(given.channels[4:, 1:2].numpy(), latents)
        assert given.channels[:4, :, 0, 0].T.tolist() == [[1] * 4, [1] * 4, [0] * 4]
    else:
        assert np.array_equal(given.control[:4, 1:2].numpy(), latents)
    following = engine.render(
        task, RenderInputs(image=made.frames[4], handover=made.handover), lambda phase, done, total: None
    )
    assert following.frames.shape == made.frames.shape
    # The noise of the latents that both windows hold is the same.
    assert torch.equal(engine.noise_of(window(kind))(0)[:, 2], engine.noise_of(task)(0)[:, 1])


def test_a_window_of_two_noise_levels_is_modulated_by_level_and_equals_one_by_token(
    wan_folder: WanFolder,
) -> None:
    stock, taken = (WanTransformer3DModel.from_pretrained(wan_folder("ti2v") / "transformer") for _ in "ab")
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(1, 4, 4, 2, 4, generator=generator)
    text = torch.randn(1, 7, TEXT_WIDTH, generator=generator)
    levels, runs = runs_of([0.0, 625.0, 625.0, 0.0], 2)
    tokens = torch.tensor([0.0, 625.0, 625.0, 0.0]).repeat_interleave(2)[None]
    with torch.no_grad():
        expected = stock(latents, tokens, text).sample
        made = ByLevel(taken, Pointwise(tokens_at_once=3))(latents, torch.tensor(levels), text, runs=runs)[0]
    assert torch.allclose(made, expected, atol=1e-5)


def test_encoded_prompts_are_data_and_leave_the_encoder_alone(wan_engine: WanEngine) -> None:
    engine = wan_engine("ti2v")
    assert isinstance(engine, TextEngine)  # a worker asks it for the prompts of a job
    task = window("ti2v", prompt="a prompt of its own")
    text = engine.encode_prompts(task, "chunk")
    engine.load("resident")
    assert {name: array.dtype for name, array in text.items()} == {
        "prompt_embeds": np.float32,
        "negative_embeds": np.float32,
    }
    assert len(text["prompt_embeds"]) < 30  # its own tokens, no padding
    image = picture("ti2v")
    here = _render(engine, "ti2v", RenderInputs(image=image), prompt=task.prompt).frames
    there = _render(engine, "ti2v", RenderInputs(image=image, text=text), prompt="not read").frames
    assert np.array_equal(here, there)
    with pytest.raises(ValueError, match="text has prompt_embeds, expected negative_embeds"):
        _render(engine, "ti2v", RenderInputs(image=image, text={"prompt_embeds": text["prompt_embeds"]}))


@pytest.mark.parametrize(("strength", "steps_left"), [(0.25, 1), (0.5, 2), (1.0, 4)])
def test_a_video_is_noised_to_the_level_of_the_steps_left(
    wan_engine: WanEngine, strength: float, steps_left: int
) -> None:
    engine = wan_engine("a14b")
    video = np.stack([picture("a14b", number) for number in range(FRAMES)])
    task = window("a14b", strength=strength)
    noise = engine.noise_of(task)(0)
    latents, steps = engine.initial_latents(task, noise, video)
    assert steps == engine.steps_of(STEPS)[-steps_left:]
    mixed = (1 - steps[0].sigma) * engine.encode_video(video) + steps[0].sigma * noise
    assert torch.allclose(latents, mixed)
    # Without a picture the window begins with the video's first frame.
    by_itself = _render(engine, "a14b", RenderInputs(video=video), strength=strength)
    told = _render(engine, "a14b", RenderInputs(image=video[0], video=video), strength=strength)
    assert np.array_equal(by_itself.frames, told.frames)


def test_every_step_and_latent_is_told_and_may_stop_it(wan_engine: WanEngine) -> None:
    told: list[tuple[str, int, int]] = []
    engine = wan_engine("a14b")
    inputs = RenderInputs(image=picture("a14b"))
    engine.render(window("a14b"), inputs, lambda *each: told.append(each))
    assert [done for phase, done, total in told if (phase, total) == ("denoise", STEPS)] == [0, 1, 2, 3, 4]
    assert [done for phase, done, total in told if (phase, total) == ("decode", 3)] == [0, 1, 2, 3]

    def stop(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("denoise", 2):
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.render(window("a14b"), inputs, stop)
    assert _render(engine, "a14b", inputs).frames.shape[0] == FRAMES


def test_values_that_are_not_finite_name_their_step(wan_engine: WanEngine) -> None:
    with pytest.raises(FloatingPointError, match="step 2 of 4"):
        _render(wan_engine("a14b"), "a14b", RenderInputs(image=picture("a14b")), guidance_scale=1e38)


@pytest.mark.parametrize(
    ("kind", "inputs", "changes", "message"),
    [
        ("a14b", {}, {}, "image is missing"),
        ("a14b", {"image": picture("a14b")}, {"width": 40}, "needs multiples of 16"),
        ("a14b", {"image": picture("a14b")}, {"frame_indices": tuple(range(8))}, "in the form 4k\\+1"),
        ("ti2v", {"image": picture("ti2v"), "last_image": picture("ti2v")}, {}, "last_image is given"),
        ("ti2v", {"known": {4: picture("ti2v")}}, {}, "keyframes is given"),
        ("a14b", {"known": {9: picture("a14b")}}, {}, "known has frame 9"),
        ("a14b", {"image": picture("a14b")}, {"strength": 0.5}, "video is missing"),
        ("a14b", {"image": picture("a14b")[:16]}, {}, "given at 0 is"),
        (
            "a14b",
            {"image": picture("a14b"), "handover": {"latents": np.zeros((4, 2, 4, 6), np.float32)}},
            {},
            "takes up to 1",
        ),
        (
            "a14b",
            {"image": picture("a14b"), "handover": {"latents": np.zeros((4, 1, 4, 4), np.float32)}},
            {},
            "expected \\(4, 'k', 4, 6\\)",
        ),
        ("a14b", {"image": picture("a14b")}, {"handover_index": 3, "handover_latents": 1}, "multiples of 4"),
        ("a14b", {"image": picture("a14b")}, {"handover_index": 8, "handover_latents": 1}, "to be left"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    wan_engine: WanEngine, kind: str, inputs: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _render(wan_engine(kind), kind, RenderInputs(**inputs), **changes)


def test_what_vace_changes_where_no_video_is_given_is_encoded_once_for_a_size(
    wan_engine: WanEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, encoded = wan_engine("vace"), condition.encode_chunks
    calls: list[int] = []
    monkeypatch.setattr(condition, "encode_chunks", lambda *of: calls.append(1) or encoded(*of))
    size = {"num_frames": 13, "height": 32, "width": 48}
    images = [picture("vace"), picture("vace")[::-1].copy()]
    made = [engine.condition({0: image}, **size).control for image in images]
    assert len(calls) == 3
    changed = slice(4, 8)  # channels of what is to be changed, between what is kept and where
    assert torch.equal(made[0][changed], made[1][changed])
    engine.condition({0: images[0]}, **(size | {"num_frames": 17}))
    assert len(calls) == 5
