"""Prompts encoded by a task of their own: once, by who can hold the encoder, before whatever needs them."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities.engine_spec import EngineSpec, RungSpec, StageCost
from farm.capabilities.worker import GIB, Need
from farm.errors import CannotRun
from farm.planning.plan import Plan
from farm.planning.suggest import plan_over
from farm.scheduling.forecast import quote
from farm.state.profiles import Profiles, pace


def text_spec(make: Any, **changes: Any) -> EngineSpec:
    """A model of 2 GiB with an encoder of 10 GiB, or of 1 GiB where it is streamed."""
    encode = {"name": "text_encode"}
    denoise = StageCost(name="denoise", components=("unet",), bytes_per_pixel=64.0)
    spec: EngineSpec = make.spec(
        component_bytes={"text": 10 * GIB, "unet": 2 * GIB},
        text_components=("text",),
        rungs=(
            RungSpec(name="resident", resident=("text", "unet"), stages=(StageCost(**encode), denoise)),
            RungSpec(name="chunk", stages=(StageCost(**encode, fixed_bytes=GIB), denoise)),
        ),
        **changes,
    )
    return spec


def test_every_segment_waits_for_the_prompt_of_its_shot_at_its_rate(make: Any) -> None:
    inputs = (make.image(), make.image(1))
    spec = text_spec(make, min_fps=1.0)
    made = make.plan(spec, inputs=inputs, prompts=("pan", "tilt"), mode="refine", num_frames=80)
    texts = {s.id: s for s in made.segments if s.level == "text"}
    assert list(texts) == ["t0-5", "t0-1", "t1-5", "t1-1"], "the drafts tell another rate than the windows"
    for segment in made.segments:
        if segment.level == "text":
            assert segment.start == made.shots[segment.shot].start
        else:
            assert segment.text_from in segment.depends_on
            text = texts[segment.text_from]
            assert (text.shot, text.frame_stride) == (segment.shot, segment.frame_stride)
    assert made.segments[:4] == tuple(texts.values()), "nothing waits for what comes behind it"
    assert made.render_task(texts["t1-5"]).prompt == "tilt"
    assert Plan.model_validate_json(made.model_dump_json()) == made


def test_no_window_holds_an_encoder_and_a_prompt_holds_nothing_else(make: Any) -> None:
    made = make.plan(text_spec(make))
    profiles = Profiles()
    text, window = made.segments[0], made.segments[1]
    prompts, windows = (profiles.needs(made, s, "cuda") for s in (text, window))
    assert prompts == {"resident": Need(10 * GIB + GIB // 2), "chunk": Need(GIB + GIB // 2, 10 * GIB)}
    assert all(need.vram_bytes < 3.5 * GIB for need in windows.values())
    assert profiles.render_s(made, text, make.worker("a/0", 24), "resident") > 10


def test_encoding_a_prompt_teaches_nothing_of_the_speed_of_windows(make: Any) -> None:
    made = make.plan(text_spec(make))
    profiles = Profiles()
    profiles.learn_success(pace(made, made.segments[0], "cuda"), "a/0", "chunk", render_s=60.0, load_s=9.0)
    assert not profiles.has_measured(made.model, make.worker("a/0"))
    assert profiles.load_s == {}


def test_a_farm_without_room_for_the_encoder_says_which_machine_lacks_how_much(make: Any) -> None:
    spec = text_spec(make)
    resident_only = spec.model_copy(update={"rungs": spec.rungs[:1]})
    with pytest.raises(CannotRun, match=r"encodes the prompts.*a/0 has 8.00 GiB.*needs 10.50 GiB"):
        plan_over(make.request(), resident_only, [make.worker("a/0", 8)])
    assert plan_over(make.request(), resident_only, [make.worker("a/0", 8), make.worker("b/0", 12)])
    assert plan_over(make.request(), spec, [make.worker("a/0", 4)])


def test_a_quote_counts_workers_that_hold_windows_where_one_holds_the_prompts(make: Any) -> None:
    spec = text_spec(make).model_copy(update={"rungs": text_spec(make).rungs[:1]})
    made = make.plan(spec, num_frames=40)

    def quoted(*workers: Any) -> Any:
        state = make.state(make.joined(*workers))
        return quote(state, made, 0.0)

    assert quoted(make.worker("a/0", 8), make.worker("b/0", 8)).predicted_s is None
    whole = quoted(make.worker("a/0", 8), make.worker("b/0", 12))
    assert whole.predicted_s is not None
    assert sum(share.segments > 0 for share in whole.workers) >= 1


def test_a_model_that_encodes_for_itself_has_no_such_task(make: Any) -> None:
    made = make.plan()
    assert all(s.level != "text" and s.text_from is None for s in made.segments)
    assert made.text_on == {}
