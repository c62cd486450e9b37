"""Refining an image's own draft: what is drafted, what each window is made from, and what it costs."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from farm.planning.modes.cutting import draft_steps, draft_stride
from farm.planning.modes.refine import DRAFT_STRENGTH
from farm.planning.plan import Plan, Segment
from farm.planning.planner import plan
from farm.planning.predict import critical_path, makespan

#: Window, overlap and lowest frame rate of the model; the frames are 8 a second.
CUTS = [
    (8, 3, 1.0),
    (8, 3, 4.0),
    (8, 0, 1.0),
    (8, 4, 2.0),
    (16, 4, 4.0),
    (16, 3, 1.0),
    (9, 2, 0.5),
    (2, 1, 1.0),
]
#: make test-fast takes some of them.
SOME_CUTS = [pytest.param(cut, marks=[] if i % 3 == 0 else pytest.mark.slow) for i, cut in enumerate(CUTS)]


def refined(make: Any, num_frames: int, cut: tuple[int, int, float] = (8, 3, 1.0), **changes: Any) -> Plan:
    window, overlap, min_fps = cut
    made: Plan = make.plan(
        make.spec(min_fps=min_fps, default_steps=50),
        **(
            {"mode": "refine", "num_frames": num_frames, "window_frames": window, "overlap_frames": overlap}
            | changes
        ),
    )
    return made


@cache
def of_every_length(make: Any, cut: tuple[int, int, float]) -> list[Plan]:
    """Plans of more than a window, up to 100 frames."""
    return [refined(make, num_frames, cut) for num_frames in range(cut[0] + 1, 101)]


def level(made: Plan, name: str, shot: int = 0) -> list[Segment]:
    return [s for s in made.segments if s.level == name and s.shot == shot]


def frames_of_sources(made: Plan, segment: Segment) -> dict[int, tuple[str, int]]:
    """(segment, position) of the frames this one is made from, by frame number."""
    by_id = {s.id: s for s in made.segments}
    return {
        by_id[run.segment].frame_indices[position]: (run.segment, position)
        for run in segment.sources
        for position in range(run.first, run.end)
    }


@pytest.mark.parametrize(
    ("step", "fps", "min_fps", "stride"),
    [
        (5, 8, 1, 5),
        (5, 8, 4, 1),
        (5, 8, 1.6, 5),
        (5, 8, 1.7, 1),
        (12, 8, 1, 6),
        (12, 8, 2, 4),
        (12, 8, 4, 2),
        (12, 24, 2, 12),
        (13, 8, 1, 1),
        (5, 2, 4, 1),
        (1, 8, 0.1, 1),
        (6, Fraction(30000, 1001), 9.99, 3),
        (6, Fraction(30000, 1001), 9.9, 3),
    ],
)
def test_a_draft_is_as_sparse_as_the_model_and_the_windows_allow(
    step: int, fps: Fraction, min_fps: float, stride: int
) -> None:
    assert draft_stride(step, Fraction(fps), min_fps) == stride


@pytest.mark.parametrize(
    ("steps", "stride", "drafted"),
    [
        (50, 1, 18),
        (30, 1, 10),
        (10, 1, 4),
        (4, 1, 4),
        (2, 1, 2),
        (1, 1, 1),
        (20, 2, 14),
        (20, 3, 20),
        (20, 5, 20),
    ],
)
def test_a_draft_takes_a_third_of_a_chains_steps_but_no_less_than_four_or_all(
    steps: int, stride: int, drafted: int
) -> None:
    assert draft_steps(steps, stride) == drafted


def test_a_draft_is_changed_less_than_a_persons_own_video(make: Any) -> None:
    made = refined(make, 40, CUTS[0])
    assert made.strength == DRAFT_STRENGTH
    assert refined(make, 40, CUTS[0], strength=0.8).strength == 0.8


@pytest.mark.parametrize("cut", SOME_CUTS)
def test_every_window_starts_from_a_keyframe_of_its_own(make: Any, cut: tuple[int, int, float]) -> None:
    for made in of_every_length(make, cut):
        keyframes = {s.id for s in level(made, "keyframes")}
        first, *others = made.final_segments
        assert 0 not in frames_of_sources(made, first), "the shot's first frame is its image"
        starts = {frames_of_sources(made, s)[s.start] for s in others}
        assert len(starts) == len(others)
        for segment in made.final_segments:
            assert {run.segment for run in segment.sources} == set(segment.depends_on) <= keyframes


@pytest.mark.parametrize("cut", SOME_CUTS)
def test_every_frame_that_is_rendered_lies_between_frames_that_are_there(
    make: Any, cut: tuple[int, int, float]
) -> None:
    for made in of_every_length(make, cut):
        for segment in (*level(made, "keyframes"), *made.final_segments):
            there = {0, *frames_of_sources(made, segment)}
            assert max(there) >= max(segment.frame_indices)
            if segment.level == "keyframes":
                assert there >= set(segment.frame_indices)
            elif segment.start:
                assert min(there - {0}) == segment.start


@pytest.mark.parametrize("cut", SOME_CUTS)
def test_windows_that_overlap_take_the_frames_they_share_from_the_same_places(
    make: Any, cut: tuple[int, int, float]
) -> None:
    for made in of_every_length(make, cut):
        places = defaultdict(set)
        for segment in made.final_segments:
            for frame, place in frames_of_sources(made, segment).items():
                places[frame].add(place)
        assert {len(found) for found in places.values()} == {1}


@pytest.mark.parametrize("cut", SOME_CUTS)
def test_a_draft_is_a_chain_in_full_windows_that_share_one_frame(
    make: Any, cut: tuple[int, int, float]
) -> None:
    for made in of_every_length(make, cut):
        draft = level(made, "draft")
        assert {s.num_frames for s in draft} == {cut[0]}
        assert draft[0].depends_on == ()
        for before, after in pairwise(draft):
            assert after.depends_on == (before.id,) == (after.handover_from,)
            assert after.anchor_from == draft[0].id
            assert before.handover_index == cut[0] - 1
            assert before.frame_indices[-1] == after.frame_indices[0]
        assert draft[-1].handover_index is None
        drafted = {f for s in draft for f in s.frame_indices}
        assert {s.start for s in made.final_segments} <= drafted


@pytest.mark.parametrize("cut", SOME_CUTS)
def test_neighbouring_clips_of_keyframes_share_the_frame_of_the_draft_that_was_handed_over(
    make: Any, cut: tuple[int, int, float]
) -> None:
    made = refined(make, 100, cut)
    draft, clips = level(made, "draft"), level(made, "keyframes")
    assert [s.frame_indices for s in clips] == [s.frame_indices for s in draft]
    assert [s.depends_on for s in clips] == [(s.id,) for s in draft]
    for before, after in pairwise(clips):
        assert before.frame_indices[-1] == after.frame_indices[0]
    firsts = {s.frame_indices[0]: s.id for s in clips[1:]}
    for segment in made.final_segments:
        found = frames_of_sources(made, segment)
        for frame, clip in firsts.items():
            assert frame not in found or found[frame] == (clip, 0)


def test_all_windows_can_run_at_once_when_the_keyframes_are_there(make: Any) -> None:
    made = refined(make, 96)
    by_id = {s.id: s for s in made.segments}
    assert all(by_id[d].level == "keyframes" for s in made.final_segments for d in s.depends_on)
    assert all(by_id[d].level == "draft" for s in level(made, "keyframes") for d in s.depends_on)
    last = max(makespan(made, n) for n in (len(made.segments), 10 * len(made.segments)))
    assert last == pytest.approx(critical_path(made))


@pytest.mark.parametrize("num_frames", range(1, 9))
def test_a_shot_of_one_window_needs_no_draft(make: Any, num_frames: int) -> None:
    made = refined(make, num_frames)
    (segment,) = made.segments
    assert (segment.level, segment.depends_on, segment.sources) == ("final", (), ())
    assert made.render_task(segment).strength is None
    assert made.segments == refined(make, num_frames, mode="chain").segments


def test_every_shot_of_a_storyboard_has_a_draft_of_its_own(make: Any) -> None:
    inputs = (make.image(0), make.image(1), make.image(2))
    made = refined(make, 60, inputs=inputs)
    for shot in made.shots:
        own = [s for s in made.segments if s.shot == shot.index]
        assert [s.level for s in own] == ["draft", "keyframes"] + ["final"] * 4
        assert {d for s in own for d in s.depends_on} <= {s.id for s in own}
        assert own[0].start == own[2].start == shot.start
        assert own[-1].end == shot.end
        assert shot.start not in frames_of_sources(made, own[2])


# What the engine is told.


def test_draft_keyframes_and_windows_are_told_their_own_rate_steps_and_strength(make: Any) -> None:
    made = refined(make, 40, strength=0.7)
    told = {(t.level, t.fps, t.num_inference_steps, t.strength) for t in map(made.render_task, made.segments)}
    assert told == {("draft", 1.6, 50, None), ("keyframes", 1.6, 50, 0.7), ("final", 8.0, 50, 0.7)}


def test_no_two_passes_over_a_frame_draw_the_same_noise_but_windows_that_overlap_do(make: Any) -> None:
    made = refined(make, 100, (8, 3, 4.0))
    levels = defaultdict(set)
    for segment in made.segments:
        levels[segment.level].add(made.render_task(segment).noise_level)
    assert levels["final"] == {0}
    assert len(levels["keyframes"]) == 1
    assert len(levels["draft"]) == len(level(made, "draft"))
    assert len(set.union(*levels.values())) == sum(map(len, levels.values()))


@pytest.mark.parametrize("mode", ["chain", "refine"])
def test_the_longest_video_finds_noise_for_every_segment(make: Any, mode: str) -> None:
    made = refined(make, 25_000, (8, 3, 4.0), mode=mode)
    tasks = [made.render_task(s) for s in made.segments]
    assert max(t.noise_level for t in tasks) < 2**12
    for before, after in pairwise(tasks):
        shared = set(before.frame_indices) & set(after.frame_indices)
        assert not shared or before.level in ("keyframes", "final") or before.noise_level != after.noise_level


# What it costs.


@pytest.mark.parametrize(("min_fps", "path", "work"), [(1.0, 0.189, 0.505), (4.0, 0.297, 0.786)])
def test_96_frames_take_at_most_a_third_of_a_chains_time_and_less_work(
    make: Any, min_fps: float, path: float, work: float
) -> None:
    made = refined(make, 96, (8, 3, min_fps))
    chained = refined(make, 96, mode="chain")
    shares = (critical_path(made) / critical_path(chained), made.mpixel_steps / chained.mpixel_steps)
    assert shares == pytest.approx((path, work), abs=0.001)
    assert shares[0] <= 0.35
    assert shares[1] < 1


def test_work_is_counted_in_the_steps_that_are_run(make: Any) -> None:
    made = refined(make, 40, width=512, height=512)
    mpixels = 8 * 512 * 512 / 1e6
    assert {s.level: made.work_units(s) / mpixels for s in made.segments} == pytest.approx(
        {"draft": 50, "keyframes": 15, "final": 15}
    )
    assert made.mpixel_steps == pytest.approx(sum(made.work_units(s) for s in made.segments))
    assert made.on == refined(make, 40, width=512, height=512, mode="chain").on, "the windows need the same"


@pytest.mark.parametrize("mode", ["chain", "refine"])
def test_one_worker_takes_all_the_work_and_many_the_critical_path(make: Any, mode: str) -> None:
    made = refined(make, 60, mode=mode)
    times = [makespan(made, n) for n in (1, 2, 3, 5, 1000)]
    assert times[0] == pytest.approx(made.mpixel_steps)
    assert times[-1] == pytest.approx(critical_path(made))
    assert times == sorted(times, reverse=True)


def test_workers_take_the_shots_of_a_storyboard_beside_each_other(make: Any) -> None:
    made = refined(make, 40, mode="chain", inputs=(make.image(0), make.image(1)))
    assert makespan(made, 2) == pytest.approx(makespan(made, 1) / 2)


# Which mode ``auto`` takes.


@pytest.mark.parametrize(
    ("spec", "asked", "workers", "mode", "note"),
    [
        ({}, {}, 1, "chain", None),
        ({}, {}, 2, "refine", "refine chosen: 2 workers, about 0.28 of chain's time"),
        ({}, {}, 3, "refine", "refine chosen: 3 workers, about 0.22 of chain's time"),
        ({"min_fps": 4.0}, {}, 3, "refine", "refine chosen: 3 workers, about 0.30 of chain's time"),
        ({}, {"num_frames": 8}, 8, "chain", None),
        ({"takes": frozenset({"image", "text"})}, {}, 8, "chain", None),
        ({"random_access": True}, {}, 8, "independent", None),
        ({}, {"mode": "chain"}, 8, "chain", None),
        ({}, {"strength": 1.0, "num_frames": 9}, 8, "chain",
         "chain chosen: 8 workers would take about 1.50 of its time for refine"),
    ],
)  # fmt: skip
def test_auto_refines_an_image_when_that_is_sooner_and_says_so(
    make: Any, spec: dict[str, Any], asked: dict[str, Any], workers: int, mode: str, note: str | None
) -> None:
    model = make.spec(**({"min_fps": 1.0, "default_steps": 50} | spec))
    request = make.request(**({"num_frames": 96, "width": 512, "height": 512} | asked))
    made = plan(request, model, workers=workers)
    assert (made.mode, made.notes) == (mode, (note,) if note else ())
