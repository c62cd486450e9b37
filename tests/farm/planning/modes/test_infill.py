"""Windows between keyframes: of one image by way of a draft, of several directly."""

from __future__ import annotations

from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.capabilities.engine_spec import EngineSpec
from farm.planning.plan import Plan, Segment
from farm.planning.planner import plan
from farm.planning.predict import makespan
from tests.farm.planning.test_planner import check_exact

TAKES = frozenset({"image", "last_image", "keyframes", "text"})
CAUSAL = FrameRule.causal(4, max_frames=33)


def causal_spec(make: Any, **changes: Any) -> EngineSpec:
    default = {"takes": TAKES, "frames": CAUSAL, "window_frames": 17, "overlap_frames": 1, "min_fps": 0.5}
    spec: EngineSpec = make.spec(**(default | changes))
    return spec


def known_frames(made: Plan, segment: Segment) -> list[int]:
    """Numbers of the frames a segment is given, each looked up in the segment it comes from."""
    by_id = {s.id: s for s in made.segments}
    return [i for run in segment.known for i in by_id[run.segment].frame_indices[run.first : run.end]]


@pytest.mark.parametrize("overlap", [1, 5])
@pytest.mark.parametrize("rule", [CAUSAL, FrameRule(max_frames=33)])
def test_every_length_is_made_exactly_from_one_image(make: Any, overlap: int, rule: FrameRule) -> None:
    spec = causal_spec(make, frames=rule)
    for num_frames in range(1, 101):
        made = make.plan(spec, mode="infill", num_frames=num_frames, overlap_frames=overlap)
        check_exact(made, spec)
        for segment in made.final_segments:
            assert (segment.start - made.shots[0].start) % rule.frames_per_latent == 0


@pytest.mark.parametrize("overlap", [1, 5])
def test_windows_share_their_keyframes_and_none_waits_for_another(make: Any, overlap: int) -> None:
    made = make.plan(causal_spec(make), mode="infill", num_frames=96, overlap_frames=overlap)
    finals = made.final_segments
    last = finals[-1]
    levels = {s.id: s.level for s in made.segments}
    for segment in finals:
        begin = list(range(segment.start, segment.start + overlap)) if segment.start else []
        end = [] if segment is last else list(range(segment.end - overlap, segment.end))
        assert known_frames(made, segment) == begin + end
        assert {levels[d] for d in segment.depends_on} == {"draft" if overlap == 1 else "keyframes"}
    assert last.num_frames == CAUSAL.at_least(last.end - last.start), "it renders just what is kept"


def test_each_clip_at_the_ends_of_windows_grows_from_a_frame_of_the_draft(make: Any) -> None:
    made = make.plan(causal_spec(make, max_end_latents=2), mode="infill", num_frames=96)
    clips = [s for s in made.segments if s.level == "keyframes"]
    assert made.overlap_frames == 5
    assert [c.start for c in clips] == [s.start for s in made.final_segments[1:]]
    for clip in clips:
        assert clip.num_frames == 5
        assert known_frames(made, clip) == [clip.start]


def test_a_draft_has_no_more_frames_than_keyframes_are_needed(make: Any) -> None:
    made = make.plan(causal_spec(make), mode="infill", num_frames=96)
    drafts = [s for s in made.segments if s.level == "draft"]
    assert [(d.num_frames, d.frame_stride) for d in drafts] == [(9, 16)]
    assert [d.num_inference_steps for d in drafts] == [made.num_inference_steps]


def test_a_model_that_knows_no_slow_rates_drafts_frames_between_the_keyframes(make: Any) -> None:
    spec = causal_spec(make, min_fps=2.0)
    made = make.plan(spec, mode="infill", num_frames=96)
    drafts = [s for s in made.segments if s.level == "draft"]
    assert {d.frame_stride for d in drafts} == {4}
    check_exact(made, spec)


def test_a_draft_of_every_frame_is_said_to_be_no_gain(make: Any) -> None:
    made = make.plan(causal_spec(make, min_fps=8.0), mode="infill", num_frames=96)
    assert any("a chain would end sooner" in note for note in made.notes)
    assert not any("a chain" in note for note in make.plan(causal_spec(make), mode="infill").notes)


@pytest.mark.parametrize(("num_frames", "most"), [(96, 0.40), (192, 0.25)])
def test_the_longest_path_is_short_beside_a_chains(make: Any, num_frames: int, most: float) -> None:
    asked = {"num_frames": num_frames, "num_inference_steps": 4}
    infill = make.plan(causal_spec(make), mode="infill", **asked)
    chain = make.plan(causal_spec(make), mode="chain", **asked)
    assert makespan(infill, 1000) / makespan(chain, 1000) <= most
    assert infill.mpixel_steps / chain.mpixel_steps <= 1.2


@pytest.mark.parametrize("takes", [TAKES, TAKES | {"video"}])
def test_auto_takes_infill_for_one_image_where_it_ends_sooner(make: Any, takes: frozenset[str]) -> None:
    spec = causal_spec(make, takes=takes, untrained=frozenset({"video"}) & takes)
    request = make.request(num_frames=96)
    made = plan(request, spec, workers=4)
    assert made.mode == "infill"
    assert any("infill chosen: 4 workers" in note for note in made.notes)
    assert plan(request, spec, workers=1).mode == "chain"


def test_auto_makes_each_picture_of_a_storyboard_a_shot_of_its_own(make: Any) -> None:
    spec = causal_spec(make)
    storyboard = make.request(num_frames=192, inputs=(make.image(), make.image(1)))
    made = plan(storyboard, spec, workers=12)
    assert made.mode == "infill"
    assert [(shot.start, shot.end, shot.last_media) for shot in made.shots] == [
        (0, 96, None),
        (96, 192, None),
    ]
    check_exact(made, spec)
    assert plan(storyboard, spec, workers=2).mode == "chain", "two workers have a shot each"


def test_auto_never_gives_a_model_what_it_was_not_trained_for_and_asked_for_it_is_said(make: Any) -> None:
    spec = causal_spec(make, untrained=frozenset({"last_image"}))
    assert plan(make.request(num_frames=96), spec, workers=4).mode == "chain"
    made = make.plan(spec, mode="infill", num_frames=96)
    assert any("a last image, which it was not trained for" in note for note in made.notes)


# Several images.


def test_every_length_between_images_is_made_exactly_and_images_stand_where_latents_end(make: Any) -> None:
    spec = causal_spec(make)
    for num_images in (2, 3, 5):
        inputs = tuple(make.image(i) for i in range(num_images))
        for num_frames in range(4 * (num_images - 1) + 1, 130):
            made = make.plan(spec, inputs=inputs, mode="infill", num_frames=num_frames)
            check_exact(made, spec)
            assert all((shot.end - 1) % 4 == 0 for shot in made.shots[:-1])
            past_end = -(num_frames - 1) % 4
            assert any(f"{past_end} frames past the end" in n for n in made.notes) == (past_end > 0)


def test_more_frames_between_two_images_than_a_window_has_are_drafted_first(make: Any) -> None:
    spec = causal_spec(make)
    made = make.plan(spec, inputs=(make.image(), make.image(1)), mode="infill", num_frames=61)
    (draft,) = (s for s in made.segments if s.level == "draft")
    assert (draft.frame_indices[0], draft.frame_indices[-1]) == (0, 60)
    finals = made.final_segments
    assert sorted(s.num_frames for s in finals) == [13, 17, 17, 17]
    edges = list(draft.frame_indices)
    for i, segment in enumerate(finals):
        assert known_frames(made, segment) == [
            frame for frame in (edges[i], edges[i + 1]) if frame not in (0, 60)
        ]
        assert segment.depends_on == (draft.id,)
