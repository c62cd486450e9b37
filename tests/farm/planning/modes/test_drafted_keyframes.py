"""Keyframes that are drafted smaller, in few steps or by another model, and refined by the video's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.capabilities import FrameRule
from farm.capabilities.engine_spec import EngineSpec
from farm.errors import CannotRun
from farm.planning.plan import Plan, Segment
from farm.planning.planner import plan
from tests.farm.conftest import Make
from tests.farm.planning.modes.test_infill import CAUSAL, TAKES, causal_spec, known_frames
from tests.farm.planning.test_planner import check_exact

EIGHTS = FrameRule.causal(8, min_frames=9, max_frames=161)
LINEAR = FrameRule(max_frames=33)


def a14b(make: Any, **changes: Any) -> EngineSpec:
    """What is published of Wan 2.2 I2V-A14B: one pace of 16 frames a second, two experts."""
    default: dict[str, Any] = {
        "model": "a14b",
        "takes": TAKES | {"prefix", "video"},
        "untrained": frozenset({"keyframes", "prefix"}),
        "frames": FrameRule.causal(4, min_frames=5, max_frames=81),
        "window_frames": 81,
        "trained_windows": (81,),
        "overlap_frames": 5,
        "native_width": 832,
        "native_height": 480,
        "native_fps": 16,
        "min_fps": 16.0,
        "knows_rates": False,
        "draft_steps": 2,
        "default_steps": 40,
        "side_multiple": 16,
        "default_guidance_scale": 3.5,
    }
    spec: EngineSpec = make.spec(**(default | changes))
    return spec


def lighter(make: Any, **changes: Any) -> EngineSpec:
    """A model of other sizes and other windows, ten times as fast."""
    default: dict[str, Any] = {
        "model": "lighter",
        "takes": TAKES,
        "frames": EIGHTS,
        "window_frames": 33,
        "native_width": 320,
        "native_height": 320,
        "side_multiple": 32,
        "min_fps": 0.5,
        "default_steps": 8,
        "default_guidance_scale": 1.0,
        "prior_seconds_per_mpixel_step": 0.1,
    }
    spec: EngineSpec = make.spec(**(default | changes))
    return spec


def drafted_by(make: Any, other: EngineSpec, spec: EngineSpec | None = None, **asked: Any) -> Plan:
    """A plan of a photo's video drafted by another model."""
    spec = spec or causal_spec(make, takes=TAKES | {"video"}, default_steps=20)
    asked = {"model": spec.model, "draft_model": other.model, "num_frames": 96} | asked
    return plan(make.request(**asked), spec, draft=other)


def levels(made: Plan, level: str) -> list[Segment]:
    return [s for s in made.segments if s.level == level]


# Exactness, whatever drafts.


def check_keyframes(made: Plan, overlap: int) -> None:
    """Each keyframe is drafted and refined once, and is the same bytes at the end of one window and the begin
    of the next: nothing of it is rendered again in between."""
    for before, after in zip(made.final_segments, made.final_segments[1:], strict=False):
        if before.shot != after.shot:
            assert after.head == 0
            assert not {f for f in known_frames(made, after) if f < after.start}
            continue
        shared = set(range(after.start, after.start + overlap))
        end = [run for run in before.known if run in after.known]
        assert end, "neighbours are given the same frames of the same segment"
        by_id = {s.id: s for s in made.segments}
        frames = {i for run in end for i in by_id[run.segment].frame_indices[run.first : run.end]}
        assert shared <= frames
    sources = [(run.segment, run.first) for s in levels(made, "keyframes") for run in s.sources]
    assert len(sources) == len(set(sources)), "no frame of a draft is refined twice"


RULES = [CAUSAL, LINEAR, FrameRule(step=4, remainder=1, min_frames=5, max_frames=33)]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    num_frames=st.integers(1, 200),
    num_images=st.integers(1, 3),
    clip=st.booleans(),
    rule=st.sampled_from(RULES),
    other=st.sampled_from([None, EIGHTS, LINEAR]),
    knows_rates=st.booleans(),
)
def test_every_frame_is_made_once_and_every_keyframe_shared_once(
    num_frames: int, num_images: int, clip: bool, rule: FrameRule, other: FrameRule | None, knows_rates: bool
) -> None:
    make = Make()
    num_frames = max(num_frames, num_images)
    takes = TAKES | {"video"}
    spec = causal_spec(make, takes=takes, frames=rule, knows_rates=knows_rates, default_steps=20)
    overlap = 5 if clip else 1
    asked: dict[str, Any] = {
        "num_frames": num_frames,
        "overlap_frames": overlap,
        "inputs": tuple(make.image(i) for i in range(num_images)),
    }
    if other is None:
        if num_images > 1:  # with infill by name they would be keyframes
            return
        made = make.plan(spec, mode="infill", **asked)
    else:
        made = drafted_by(make, lighter(make, frames=other, knows_rates=knows_rates), spec, **asked)
    finals = made.final_segments
    assert [f for s in finals for f in range(s.start + s.head, s.end)] == list(range(num_frames))
    assert all(spec.frames.allows(s.num_frames) for s in made.segments if not s.drafted)
    assert all((other or rule).allows(s.num_frames) for s in levels(made, "draft"))
    if other is None:
        check_exact(made, spec)
    check_keyframes(made, overlap)


# A model of one pace.


def test_a_model_of_one_pace_drafts_every_frame_small_and_in_the_fewest_steps(make: Any) -> None:
    asked = {"mode": "infill", "num_frames": 96, "window_frames": 17, "width": 1280, "height": 720}
    made = make.plan(a14b(make), model="a14b", **asked)
    drafts = levels(made, "draft")
    assert {(s.num_inference_steps, s.frame_stride) for s in drafts} == {(2, 1)}
    assert {frame for s in drafts for frame in s.frame_indices} >= {s.start for s in made.final_segments}
    assert made.draft is not None
    assert made.draft.model == "a14b"
    task = made.render_task(drafts[0])
    assert (task.width, task.height) == (made.draft.width, made.draft.height)
    assert task.width / task.height == pytest.approx(1280 / 720, rel=0.01)
    assert task.width * task.height == pytest.approx(832 * 480, rel=0.11)
    final = made.render_task(made.final_segments[0])
    assert (final.width, final.height, final.num_inference_steps) == (1280, 720, 40)


def test_each_keyframe_is_rendered_over_held_still_for_a_latent_of_its_own(make: Any) -> None:
    made = make.plan(a14b(make), model="a14b", mode="infill", num_frames=96, window_frames=17)
    refined = levels(made, "keyframes")
    assert [s.frame_indices for s in refined] == [(k,) * 5 for k in (16, 32, 48, 64, 80)]
    assert made.strength == 0.3
    for segment in refined:
        assert made.is_over_frames(segment)
        assert known_frames(made, segment) == []
    for before, after in zip(made.final_segments, made.final_segments[1:], strict=False):
        (run,) = (r for r in after.known if r in before.known)
        assert (run.first, run.end) == (4, 5), "the last frame of its latent"


def test_a_clip_at_the_ends_grows_from_the_refined_keyframe(make: Any) -> None:
    spec = a14b(make, max_end_latents=2, untrained=frozenset())
    made = make.plan(spec, model="a14b", mode="infill", num_frames=96, window_frames=17)
    refined = {s.id for s in levels(made, "keyframes") if s.sources}
    clips = [s for s in levels(made, "keyframes") if s.known]
    assert clips
    assert {run.segment for s in clips for run in s.known} == refined


def test_a_draft_hands_over_its_frame_alone_and_has_the_videos_shape(make: Any) -> None:
    spec = a14b(make, untrained=frozenset(), max_prefix_latents=2, trained_sides=(128, 1280))
    asked = {"num_frames": 96, "window_frames": 17, "width": 256, "height": 192}
    made = make.plan(spec, model="a14b", mode="infill", **asked)
    first, second, *_ = levels(made, "draft")
    assert (first.handover_latents, second.start) == (0, 16)
    assert made.draft is not None
    assert (made.draft.width, made.draft.height) == (192, 144), "4 to 3 as the video, not 176x128"


def test_a_pace_of_half_the_videos_rate_leaves_out_every_other_frame(make: Any) -> None:
    made = make.plan(a14b(make), model="a14b", mode="infill", num_frames=96, window_frames=17, fps=32)
    assert {s.frame_stride for s in levels(made, "draft")} == {2}
    assert {made.render_task(s).fps for s in levels(made, "draft")} == {16.0}


@pytest.mark.parametrize(
    ("num_frames", "size", "steps", "critical_path", "work"),
    [
        (96, (832, 480), 4, 0.45, 1.2),
        (192, (832, 480), 4, 0.42, 1.2),
        (96, (1280, 720), 4, 0.40, 1.2),
        (192, (1280, 720), 4, 0.25, 1.2),
        (96, (832, 480), 40, 0.40, 1.2),
        (192, (832, 480), 40, 0.25, 1.2),
    ],
)
def test_a_draft_of_one_pace_is_short_beside_a_chain(
    make: Any, num_frames: int, size: tuple[int, int], steps: int, critical_path: float, work: float
) -> None:
    """Two of four steps are half a chain, at the size of the video: that is what it can reach there."""
    asked = {"num_inference_steps": steps, "width": size[0], "height": size[1], "window_frames": 17}
    made = make.plan(a14b(make), model="a14b", mode="infill", num_frames=num_frames, **asked)
    assert made.beside_chain is not None
    assert made.beside_chain.critical_path <= critical_path
    assert made.beside_chain.work <= work


def test_what_is_scaled_and_refined_is_said_first(make: Any) -> None:
    asked = {"num_frames": 96, "window_frames": 17, "width": 1280, "height": 720}
    notes = make.plan(a14b(make), model="a14b", mode="infill", **asked).notes
    assert (
        notes[0]
        == "the draft is by a14b, at 880x496 in 2 steps: every frame, for a14b knows no slower motion"
    )
    assert notes[1] == (
        "its keyframes are scaled from 880x496 to 1280x720; each loses 0.2%, half of it each above and below"
    )
    assert notes[2] == "its keyframes are refined by a14b, at strength 0.3"


def test_where_frames_cannot_be_refined_the_draft_has_the_videos_size_and_share_of_steps(make: Any) -> None:
    spec = a14b(make, takes=TAKES)
    made = make.plan(spec, model="a14b", mode="infill", num_frames=96, window_frames=17)
    assert made.draft is None
    assert {s.num_inference_steps for s in levels(made, "draft")} == {14}
    assert not levels(made, "keyframes")


# Another model.


def test_another_model_drafts_in_its_own_windows_size_steps_and_guidance(make: Any) -> None:
    made = drafted_by(make, lighter(make))
    assert made.mode == "infill"
    assert made.draft is not None
    (draft,) = levels(made, "draft")
    task = made.render_task(draft)
    assert (task.model, task.width, task.height) == ("lighter", 320, 320)
    assert (task.num_inference_steps, task.guidance_scale, draft.frame_stride) == (8, 1.0, 16)
    assert made.draft.window_frames == 33
    for segment in made.segments:
        if segment is not draft:
            task = made.render_task(segment)
            assert (task.model, task.width, task.guidance_scale) == ("synthetic", 512, 9.0)
    assert len(levels(made, "keyframes")) == 5
    assert Plan.model_validate_json(made.model_dump_json()) == made


def test_a_lighter_models_work_is_counted_as_what_it_takes(make: Any) -> None:
    made = drafted_by(make, lighter(make))
    (draft,) = levels(made, "draft")
    assert made.work_units(draft) == pytest.approx(9 * 320 * 320 * 8 / 1e6)
    assert made.cost_s_of(draft) == pytest.approx(0.1 * made.work_units(draft))
    assert made.beside_chain is not None
    assert made.beside_chain.critical_path < 0.3


def test_prompts_are_encoded_once_for_each_model_that_needs_them(make: Any) -> None:
    spec = causal_spec(make, takes=TAKES | {"video"}, text_components=("text",))
    made = drafted_by(make, lighter(make, text_components=("text",)), spec)
    texts = {s.id: made.render_task(s).model for s in levels(made, "text")}
    assert texts == {"td0-16": "lighter", "t0-1": "synthetic"}
    for segment in made.segments:
        if segment.level != "text":
            assert segment.text_from == ("td0-16" if segment.level == "draft" else "t0-1")
    alone = drafted_by(make, lighter(make), spec)
    assert [s.id for s in levels(alone, "text")] == ["t0-1"], "the other encodes for itself"
    same = make.plan(a14b(make, text_components=("text",)), model="a14b", mode="infill", window_frames=17)
    assert {made.render_task(s).model for s in levels(made, "text")}
    assert len(levels(same, "text")) == 1


def test_keyframes_stay_as_drafted_where_the_model_takes_no_video_and_that_is_said(make: Any) -> None:
    made = drafted_by(make, lighter(make), causal_spec(make))
    assert not levels(made, "keyframes")
    assert any("its keyframes stay as they are drafted: synthetic takes no video" in n for n in made.notes)


def test_a_draft_model_makes_each_picture_a_shot_unless_infill_is_asked_for(make: Any) -> None:
    inputs = (make.image(), make.image(1))
    shots = drafted_by(make, lighter(make), inputs=inputs)
    assert [shot.last_media for shot in shots.shots] == [None, None]
    between = drafted_by(make, lighter(make), inputs=inputs, mode="infill", num_frames=61)
    assert [shot.last_media for shot in between.shots] == [inputs[1]]
    (draft,) = levels(between, "draft")
    assert EIGHTS.allows(draft.num_frames)
    assert between.render_task(draft).model == "lighter"
    assert [s.frame_indices[-1] for s in levels(between, "keyframes")] == list(draft.frame_indices[1:-1])


def test_a_video_of_one_window_needs_no_draft(make: Any) -> None:
    made = drafted_by(make, lighter(make), num_frames=17)
    assert (made.draft, len(made.segments)) == (None, 1)
    assert "no draft is needed: lighter is not used" in made.notes


@pytest.mark.parametrize(
    ("changes", "asked", "said"),
    [
        ({"takes": frozenset({"video"})}, {}, "draft model lighter cannot start from an image"),
        ({"frames": FrameRule(), "window_frames": 1}, {}, "draft model lighter renders single frames"),
        ({"random_access": True}, {}, "draft model lighter starts anywhere instead of going on from a frame"),
        ({}, {"mode": "chain"}, "draft model lighter is given with mode chain, and infill alone"),
        ({}, {"mode": "refine"}, "draft model lighter is given with mode refine"),
    ],
)
def test_a_model_that_cannot_draft_is_refused_by_name(
    make: Any, changes: dict[str, Any], asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(CannotRun, match=said) as refused:
        drafted_by(make, lighter(make, **changes), **asked)
    assert refused.value.param == "draft_model"


def test_a_draft_between_images_needs_a_last_image(make: Any) -> None:
    other = lighter(make, takes=frozenset({"image"}))
    with pytest.raises(CannotRun, match="draft model lighter takes no last image"):
        drafted_by(make, other, inputs=(make.image(), make.image(1)), mode="infill")


def test_a_video_needs_no_draft_and_a_model_without_a_last_image_can_use_none(make: Any) -> None:
    with pytest.raises(CannotRun, match="the input is a video, which needs no draft"):
        drafted_by(make, lighter(make), inputs=(make.video(96),))
    with pytest.raises(CannotRun, match="mode infill needs a model that takes a last image"):
        drafted_by(make, lighter(make), make.spec())
