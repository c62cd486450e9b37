"""A plan is exact, the same every time, and refuses by name what a model cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest

from farm.capabilities import FrameRule
from farm.capabilities.engine_spec import EngineSpec
from farm.errors import CannotRun, InvalidInput
from farm.planning.modes.cutting import ANCHOR_STRENGTH, HOPS_BETWEEN_ANCHORS
from farm.planning.plan import Plan, Segment

WINDOWS_AND_OVERLAPS = [(2, 0), (2, 1), (5, 2), (8, 0), (8, 3), (8, 4), (9, 2), (16, 3), (17, 8)]
EVERY_FIFTH = range(1, 101, 5)
LENGTHS = [
    pytest.param(EVERY_FIFTH, id="every fifth"),
    pytest.param([n for n in range(1, 101) if n not in EVERY_FIFTH], id="the others", marks=pytest.mark.slow),
]
MODES = ["independent", "chain", "refine", "refine at random", "refine from image", "co_denoise"]


def planned(make: Any, mode: str, num_frames: int, **changes: Any) -> Plan:
    """One shot in a mode, with a model that can."""
    mode, _, how = mode.partition(" ")
    spec = make.spec(fusible=True, random_access=mode == "independent" or how == "at random", min_fps=1.0)
    if mode == "refine" and how != "from image":
        changes["inputs"] = (make.video(num_frames),)
    result: Plan = make.plan(spec, mode=mode, num_frames=num_frames, **changes)
    return result


def check_exact(made: Plan, spec: EngineSpec) -> None:
    """Every frame is made, the joins are consistent, and the stitcher can make them."""
    finals = made.final_segments
    assert {f for s in finals for f in range(s.start, s.end)} == set(range(made.num_frames))
    assert sum(s.end - s.start - s.head for s in finals) == made.num_frames
    assert finals[0].head == 0
    assert finals[-1].tail == 0
    for before, after in pairwise(finals):
        assert before.tail == after.head == before.end - after.start
        # What a join has used of a segment, the next join cannot use again.
        assert after.head <= before.end - before.start - before.head
    for segment in made.segments:
        rendered = set(segment.frame_indices)
        assert segment.level != "final" or rendered >= set(range(segment.start, segment.end))
        assert spec.frames.allows(segment.num_frames)
        assert len(segment.frame_indices) == segment.num_frames
    ids = [s.id for s in made.segments]
    assert len(set(ids)) == len(ids)
    for i, segment in enumerate(made.segments):
        assert set(segment.depends_on) <= set(ids[:i])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("window", "overlap"), WINDOWS_AND_OVERLAPS)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_every_length_from_1_to_100_is_made_exactly(
    make: Any, lengths: Sequence[int], mode: str, window: int, overlap: int
) -> None:
    for num_frames in lengths:
        made = planned(make, mode, num_frames, window_frames=window, overlap_frames=overlap)
        assert made.num_frames == num_frames
        check_exact(made, make.spec())


@pytest.mark.parametrize("num_images", [1, 2, 3, 7])
@pytest.mark.parametrize("random_access", [True, False])
def test_every_length_of_a_storyboard_is_made_exactly(
    make: Any, num_images: int, random_access: bool
) -> None:
    inputs = tuple(make.image(i) for i in range(num_images))
    spec = make.spec(random_access=random_access)
    for num_frames in range(num_images, 101):
        made = make.plan(spec, inputs=inputs, num_frames=num_frames)
        check_exact(made, spec)
        lengths = [shot.end - shot.start for shot in made.shots]
        assert len(lengths) == num_images
        assert max(lengths) - min(lengths) <= 1


def test_infill_is_exact_wherever_it_is_possible(make: Any) -> None:
    spec = make.spec(takes=frozenset({"image", "last_image"}))
    for num_images in (2, 3, 5):
        inputs = tuple(make.image(i) for i in range(num_images))
        for num_frames in range(num_images, 7 * (num_images - 1) + 2):
            made = make.plan(spec, inputs=inputs, num_frames=num_frames, mode="infill")
            check_exact(made, spec)
            for shot, before, after in zip(made.shots, inputs, inputs[1:], strict=False):
                assert (shot.media, shot.last_media) == (before, after)
            assert all(s.head == 1 for s in made.segments[1:])


def test_100000_frames_are_20000_segments(make: Any) -> None:
    made = planned(make, "independent", 100_000)
    assert len(made.segments) == 1 + -(-(100_000 - 8) // 5)
    assert made.segments[-1].end == 100_000


@pytest.mark.parametrize("mode", MODES)
def test_the_same_request_gives_the_same_plan_and_a_journal_keeps_it_whole(make: Any, mode: str) -> None:
    made = planned(make, mode, 43)
    assert planned(make, mode, 43) == made
    assert Plan.model_validate_json(made.model_dump_json()) == made


# Chains.


def test_a_chain_hands_over_the_frame_its_next_segment_starts_with(make: Any) -> None:
    for num_frames in range(9, 101):
        segments = planned(make, "chain", num_frames).segments
        assert segments[0].depends_on == ()
        for before, after in pairwise(segments):
            assert after.depends_on == (before.id,)
            assert before.handover_index is not None
            assert before.frame_indices[before.handover_index] == after.start
            assert before.start + before.handover_index < before.end
        assert segments[-1].handover_index is None


def test_a_chain_overlaps_by_one_frame_even_when_no_overlap_is_asked_for(make: Any) -> None:
    segments = planned(make, "chain", 20, overlap_frames=0).segments
    assert [s.head for s in segments[1:]] == [1, 1]


def test_a_chain_counts_its_hops_and_is_pulled_back_fully_at_every_sixth(make: Any) -> None:
    segments = planned(make, "chain", 100).segments
    assert [s.hop for s in segments] == list(range(20))
    full = [s.hop for s in segments if s.anchor_strength == 1.0]
    assert full == [HOPS_BETWEEN_ANCHORS, 2 * HOPS_BETWEEN_ANCHORS, 3 * HOPS_BETWEEN_ANCHORS]
    assert segments[0].anchor_strength == 0.0
    assert {s.anchor_strength for s in segments if s.hop % HOPS_BETWEEN_ANCHORS} == {ANCHOR_STRENGTH}


def test_every_shot_of_a_storyboard_has_a_chain_of_its_own(make: Any) -> None:
    made = make.plan(inputs=(make.image(0), make.image(1)), num_frames=40)
    first = next(s for s in made.segments if s.shot == 1)
    assert (first.id, first.depends_on, first.hop, first.head) == ("s1-0", (), 0, 0)
    assert {d for s in made.segments if s.shot == 1 for d in s.depends_on} <= {
        s.id for s in made.segments if s.shot == 1
    }


# Refine.


def test_refine_gives_every_window_the_keyframe_it_starts_with(make: Any) -> None:
    for num_frames in range(9, 101):
        made = planned(make, "refine", num_frames)
        by_id = {s.id: s for s in made.segments}
        for segment in made.final_segments:
            (run,) = segment.sources
            assert segment.depends_on == (run.segment,)
            assert by_id[run.segment].level == "keyframes"
            assert by_id[run.segment].frame_indices[run.first : run.end] == (segment.start,)


def test_refine_renders_keyframe_clips_no_longer_than_a_window(make: Any) -> None:
    made = planned(make, "refine", 100)
    clips = [s for s in made.segments if s.level == "keyframes"]
    assert [s.num_frames for s in clips] == [8, 8, 4]


def test_refine_of_one_window_needs_no_keyframes(make: Any) -> None:
    made = planned(make, "refine", 8)
    assert [(s.level, s.depends_on) for s in made.segments] == [("final", ())]


def test_refine_reads_no_frame_past_the_end_of_the_video(make: Any) -> None:
    for mode in ("refine", "refine at random"):
        for num_frames in range(1, 101):
            for segment in planned(make, mode, num_frames).segments:
                assert max(segment.frame_indices) < num_frames


def test_only_refine_has_a_strength_and_the_models_unless_one_is_asked_for(make: Any) -> None:
    assert planned(make, "refine", 20).strength == 0.6
    assert planned(make, "refine", 20, strength=0.9).strength == 0.9
    assert planned(make, "chain", 20, strength=0.9).strength is None


@pytest.mark.parametrize(("length", "rendered"), [(1, 5), (3, 5), (10, 13), (17, 17)])
def test_a_video_shorter_than_a_window_is_rendered_in_the_shortest_that_holds_it(
    make: Any, length: int, rendered: int
) -> None:
    spec = make.spec(window_frames=17, frames=FrameRule(step=4, remainder=1, min_frames=5))
    made = make.plan(spec, inputs=(make.video(length),))
    check_exact(made, spec)
    assert [s.num_frames for s in made.segments] == [rendered]


def test_keyframe_clips_keep_the_models_frame_rule(make: Any) -> None:
    spec = make.spec(window_frames=9, frames=FrameRule(step=4, remainder=1, min_frames=5))
    for num_frames in range(9, 101):
        made = make.plan(spec, inputs=(make.video(num_frames),))
        check_exact(made, spec)


# Storyboards.


def test_one_prompt_serves_all_shots(make: Any) -> None:
    made = make.plan(inputs=(make.image(0), make.image(1)), prompts=("a storm",), num_frames=20)
    assert [shot.prompt for shot in made.shots] == ["a storm", "a storm"]


def test_a_prompt_for_each_image_goes_to_its_shot(make: Any) -> None:
    inputs = (make.image(0), make.image(1))
    made = make.plan(inputs=inputs, prompts=("a storm", "a calm"), num_frames=21)
    assert [(s.prompt, s.media.sha256, s.start, s.end) for s in made.shots] == [
        ("a storm", inputs[0].sha256, 0, 10),
        ("a calm", inputs[1].sha256, 10, 21),
    ]
    tasks = [made.render_task(s) for s in made.segments]
    assert {(t.prompt, t.shot_start, t.shot_end) for t in tasks} == {
        ("a storm", 0, 10),
        ("a calm", 10, 21),
    }


def test_shots_are_cut_not_overlapped(make: Any) -> None:
    made = make.plan(inputs=(make.image(0), make.image(1)), num_frames=40)
    firsts = [next(s for s in made.segments if s.shot == shot) for shot in (0, 1)]
    assert [s.head for s in firsts] == [0, 0]


# Sizes, rates, windows.


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ((512, 512), (512, 512)),
        ((4000, 2000), (720, 360)),
        ((100, 400), (256, 1024)),
        ((333, 500), (416, 624)),
    ],
)
def test_the_size_follows_the_images_shape_at_the_models_area_and_is_said(
    make: Any, image: tuple[int, int], size: tuple[int, int]
) -> None:
    made = make.plan(inputs=(make.image(width=image[0], height=image[1]),))
    assert (made.width, made.height) == size
    assert made.notes == (
        f"size {size[0]}x{size[1]} chosen from the input's shape and the model's native area",
    )


def test_a_small_video_is_not_enlarged(make: Any) -> None:
    made = make.plan(inputs=(make.video(24, width=322, height=180),))
    assert (made.width, made.height) == (320, 176)


def test_a_size_that_is_asked_for_is_kept_or_refused_with_the_nearest(make: Any) -> None:
    made = make.plan(width=264, height=512)
    said = "the input loses 48%, half of it each left and right (fit: crop)"
    assert (made.width, made.height, made.notes) == (264, 512, (said,))
    with pytest.raises(InvalidInput, match="needs multiples of 8; try 264x512") as refused:
        make.plan(width=262, height=511)
    assert refused.value.param == "size"


def test_an_odd_side_is_refused_even_where_the_model_takes_it(make: Any) -> None:
    with pytest.raises(InvalidInput, match="multiples of 2"):
        make.plan(make.spec(side_multiple=1), width=101, height=64)


def test_a_picture_too_long_for_any_size_is_refused(make: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        make.plan(inputs=(make.image(width=60_000, height=16),))
    assert refused.value.param == "size"


@pytest.mark.parametrize(
    ("request_fps", "source_fps", "expected", "num_frames", "says"),
    [
        (None, Fraction(30000, 1001), Fraction(30000, 1001), 24, ""),
        (Fraction(24), Fraction(24), Fraction(24), 24, ""),
        (
            Fraction(12),
            Fraction(24),
            Fraction(12),
            12,
            "24 frames a second and the video 12: frames are left out",
        ),
        (
            Fraction(60),
            Fraction(24),
            Fraction(60),
            60,
            "24 frames a second and the video 60: frames are repeated",
        ),
    ],
)
def test_a_video_keeps_its_length_whatever_the_frame_rate(
    make: Any,
    request_fps: Fraction | None,
    source_fps: Fraction,
    expected: Fraction,
    num_frames: int,
    says: str,
) -> None:
    made = make.plan(inputs=(make.video(24, fps=source_fps),), fps=request_fps)
    assert (made.fps, made.num_frames) == (expected, num_frames)
    assert says in " ".join(made.notes)
    assert bool(says) == ("its length stays" in " ".join(made.notes))


def test_no_more_frames_than_the_video_has_at_the_rate_that_is_asked_for(make: Any) -> None:
    video = make.video(24, fps=Fraction(24))
    assert make.plan(inputs=(video,), fps=Fraction(48), num_frames=48).num_frames == 48
    with pytest.raises(InvalidInput, match="the input video has 12 at 12 frames a second; ask for fewer"):
        make.plan(inputs=(video,), fps=Fraction(12), num_frames=13)


def test_a_video_whose_frames_were_counted_is_planned_by_its_count(make: Any) -> None:
    assert make.plan(inputs=(make.video(24, reading=None),), fps=Fraction(12)).num_frames == 24


def test_what_reading_the_inputs_changes_is_among_the_notes(make: Any) -> None:
    made = make.plan(inputs=(make.video(24, notes=("clip.mp4: it is mirrored, as it says",)),))
    assert "clip.mp4: it is mirrored, as it says" in made.notes


def test_images_move_at_the_models_frame_rate_for_four_seconds_each(make: Any) -> None:
    made = make.plan(make.spec(native_fps=16), inputs=(make.image(0), make.image(1)))
    assert (made.fps, made.num_frames) == (16, 2 * 4 * 16)


@pytest.mark.parametrize(("seconds", "num_frames"), [(0.01, 1), (1, 8), (12.5, 100), (3.06, 24)])
def test_seconds_become_whole_frames_and_never_none(make: Any, seconds: float, num_frames: int) -> None:
    assert make.plan(seconds=seconds).num_frames == num_frames


@pytest.mark.parametrize(("window", "nearest"), [(6, 5), (8, 9), (16, 17), (3, 5), (100, 33)])
def test_a_window_outside_the_models_rule_is_refused_with_the_nearest(
    make: Any, window: int, nearest: int
) -> None:
    spec = make.spec(window_frames=17, frames=FrameRule(step=4, remainder=1, min_frames=5, max_frames=33))
    with pytest.raises(CannotRun, match=rf"form 4k\+1; nearest is {nearest}$") as refused:
        make.plan(spec, window_frames=window)
    assert refused.value.param == "window"


def test_a_model_that_can_start_anywhere_renders_only_what_is_kept_within_its_rule(make: Any) -> None:
    rule = FrameRule(step=4, remainder=1, min_frames=5)
    spec = make.spec(random_access=True, window_frames=17, frames=rule)
    for num_frames in range(1, 101):
        made = make.plan(spec, num_frames=num_frames)
        check_exact(made, spec)
        last = made.segments[-1]
        assert last.num_frames - (last.end - last.start) < max(5, 4)


def test_the_default_overlap_shrinks_with_a_small_window_and_an_asked_one_is_refused(make: Any) -> None:
    assert make.plan(window_frames=4).overlap_frames == 2
    with pytest.raises(InvalidInput, match="overlap is 5, expected at most half the window of 8") as refused:
        make.plan(overlap_frames=5)
    assert refused.value.param == "overlap"


# What the scheduler and the reports read off a plan.


def test_the_footprint_is_of_the_largest_window_and_faster_rungs_need_more(make: Any) -> None:
    made = make.plan(width=512, height=512)
    needs = made.on["cuda"].need_bytes
    assert list(needs) == ["resident", "evict", "stream"]
    assert needs["resident"] > needs["evict"] > needs["stream"]
    assert (
        make.plan(width=512, height=512, window_frames=16).on["cuda"].need_bytes["stream"] > needs["stream"]
    )


def test_a_cpu_worker_is_planned_with_the_models_cpu_spec(make: Any) -> None:
    spec = make.spec(on_cpu=make.spec(context_bytes=0, prior_seconds_per_mpixel_step=99.0))
    made = make.plan(spec)
    assert made.on["cpu"].prior_seconds_per_mpixel_step == 99.0
    assert made.on["cpu"].need_bytes["resident"] < made.on["cuda"].need_bytes["resident"]


def test_the_work_of_a_plan_is_the_sum_over_its_segments(make: Any) -> None:
    made = make.plan(num_frames=43, num_inference_steps=7)
    assert made.mpixel_steps == pytest.approx(sum(made.work_units(s) for s in made.segments))


def test_guidance_of_zero_is_not_mistaken_for_none_given(make: Any) -> None:
    assert make.plan(make.spec(default_guidance_scale=9.0), guidance_scale=0).guidance_scale == 0


def test_an_order_says_the_take_the_hop_and_the_handover(make: Any) -> None:
    made = make.plan(num_frames=20, seed=7)
    task = made.render_task(made.segments[1], take=2)
    assert (task.take, task.noise_level, task.handover_index, task.seed) == (2, 1, 5, 7)
    assert task.frame_indices == tuple(range(5, 13))


def test_a_segment_names_its_frames(make: Any) -> None:
    assert Segment(id="s", shot=0, level="final", start=3, end=5, num_frames=4).frame_indices == (3, 4, 5, 6)


@pytest.mark.parametrize("num_images", [2, 3, 5])
def test_infill_renders_a_window_between_two_images_unless_told_otherwise(make: Any, num_images: int) -> None:
    spec = make.spec(takes=frozenset({"image", "last_image"}))
    made = make.plan(spec, mode="infill", inputs=tuple(make.image(i) for i in range(num_images)))
    assert made.num_frames == (num_images - 1) * 7 + 1
    assert [segment.num_frames for segment in made.segments] == [8] * (num_images - 1)
    assert [segment.head for segment in made.segments] == [0] + [1] * (num_images - 2)


@pytest.mark.parametrize(
    ("asked", "steps"),
    [({}, 20), ({"preview": True}, 2), ({"preview": True, "num_inference_steps": 9}, 9)],
)
def test_a_preview_takes_the_models_few_steps(make: Any, asked: dict[str, Any], steps: int) -> None:
    spec = make.spec(default_steps=20, preview_steps=2)
    assert make.plan(spec, **asked).num_inference_steps == steps
    of_one = make.plan(make.spec(default_steps=1), **asked | {"num_inference_steps": None})
    assert of_one.num_inference_steps == 1


@pytest.mark.parametrize(
    ("changes", "clips"),
    [
        ({"mode": "chain"}, False),
        ({"mode": "infill", "overlap_frames": 1}, False),
        ({"mode": "infill", "overlap_frames": 5}, True),
        ({"mode": "refine"}, True),
        ({"mode": "refine", "from_video": True}, True),
    ],
)
def test_the_need_of_encoding_a_clip_is_that_of_a_plan_that_gives_one(
    make: Any, changes: dict[str, Any], clips: bool
) -> None:
    spec = make.spec(
        takes=frozenset({"image", "last_image", "keyframes", "text", "video"}),
        frames=FrameRule.causal(4, max_frames=33),
        window_frames=17,
        min_fps=0.5,
        max_end_latents=2,
    )
    large = spec.rungs[0].stages[0].model_copy(update={"fixed_bytes": 2**40, "clips_only": True})
    rungs = tuple(r.model_copy(update={"stages": (*r.stages, large)}) for r in spec.rungs)
    inputs = (make.video(65),) if changes.pop("from_video", False) else (make.image(),)
    made = make.plan(spec.model_copy(update={"rungs": rungs}), inputs=inputs, num_frames=65, **changes)
    assert all((need > 2**40) == clips for need in made.on["cuda"].need_bytes.values())
