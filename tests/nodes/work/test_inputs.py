"""The files an order names become pixels and arrays at the task's size."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from farm.capabilities.engine_spec import EngineSpec
from farm.planning.render_task import RenderTask
from farm.request import FITS, Fit, VideoReading
from farm.running.cluster import Blob, InputVideo, Order, SegmentFrame
from nodes.engines.instant import engine as instant
from nodes.work.inputs import fitted, in_shape, load_inputs
from stitching.video_io import encode_lossless

SPEC = instant.spec()
WHOLE = SPEC.model_copy(update={"wants_full_image": True})


def order(
    indices: tuple[int, ...] = (0, 1),
    *,
    frames: tuple[tuple[str, int, int], ...] = (),
    fps: Fraction = Fraction(8),
    **paths: Path,
) -> Order:
    """``frames``: (segment, position, frame number) of frames that other segments rendered."""
    return Order(
        attempt_id="job/s0-0/1",
        worker_id="a/0",
        task=RenderTask(
            model="instant",
            frame_indices=indices,
            shot_start=0,
            shot_end=20,
            height=32,
            width=48,
            fps=8.0,
            num_inference_steps=1,
            guidance_scale=1.0,
            seed=0,
        ),
        rung="resident",
        need_bytes=0,
        inputs={
            role: Blob(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), path=path)
            for role, path in paths.items()
        },
        segment_frames=tuple(SegmentFrame(segment=s, position=p, frame_index=i) for s, p, i in frames),
        input_video=InputVideo(reading=VideoReading(), source_fps=Fraction(8), fps=fps),
    )


def picture(tmp_path: Path, colour: tuple[int, int, int], width: int = 96, height: int = 64) -> Path:
    """A PNG of one RGB colour."""
    path = tmp_path / f"{'-'.join(map(str, colour))}.png"
    cv2.imwrite(str(path), np.full((height, width, 3), colour[::-1], np.uint8))
    return path


def clip(tmp_path: Path, num_frames: int, width: int = 48, height: int = 32, *, first: int = 0) -> Path:
    """A video whose frame i has the grey level ``first`` + 10 * i."""
    levels = np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * np.uint8(10) + np.uint8(first)
    frames = np.broadcast_to(levels, (num_frames, height, width, 3)).copy()
    path = tmp_path / f"clip{first}.mkv"
    path.write_bytes(encode_lossless(frames, Fraction(8)))
    return path


def arrays(tmp_path: Path, name: str, **content: NDArray[Any]) -> Path:
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(safetensors.numpy.save(content))
    return path


def test_an_image_is_read_as_rgb_at_the_tasks_size(tmp_path: Path) -> None:
    inputs = load_inputs(order(image=picture(tmp_path, (200, 100, 50))), SPEC)
    assert inputs.image is not None
    assert inputs.image.shape == (32, 48, 3)
    assert inputs.image[0, 0].tolist() == [200, 100, 50]
    assert (inputs.video, inputs.last_image, inputs.handover, inputs.anchor) == (None, None, {}, {})


def test_an_engine_that_wants_the_whole_image_gets_it_whole(tmp_path: Path) -> None:
    inputs = load_inputs(order(image=picture(tmp_path, (1, 2, 3), 90, 64)), WHOLE)
    assert inputs.image is not None
    assert inputs.image.shape == (64, 90, 3)


def test_the_last_image_comes_at_the_tasks_size(tmp_path: Path) -> None:
    first, last = picture(tmp_path, (200, 100, 50)), picture(tmp_path, (9, 8, 7))
    inputs = load_inputs(order(image=first, last_image=last), WHOLE)
    assert inputs.last_image is not None
    assert inputs.last_image.shape == (32, 48, 3)
    assert inputs.last_image[0, 0].tolist() == [9, 8, 7]


def test_known_frames_stand_at_their_places_and_the_outer_ones_are_first_and_last_image(
    tmp_path: Path,
) -> None:
    asked = order(
        (4, 5, 6, 7),
        image=picture(tmp_path, (200, 100, 50)),
        k1=clip(tmp_path, 3),
        k2=clip(tmp_path, 3, first=100),
    )
    frames = [("k1", 1, 4), ("k1", 2, 5), ("k2", 0, 6), ("k2", 2, 7)]
    known = tuple(SegmentFrame(segment=s, position=p, frame_index=i) for s, p, i in frames)
    inputs = load_inputs(asked.model_copy(update={"known_frames": known}), SPEC)
    assert inputs.image is not None
    assert inputs.last_image is not None
    assert (inputs.image[0, 0, 0], inputs.last_image[0, 0, 0]) == (10, 120)
    assert {position: frame[0, 0, 0] for position, frame in inputs.known.items()} == {1: 20, 2: 100}


def test_a_handed_over_frame_takes_the_images_place(tmp_path: Path) -> None:
    frame = np.full((32, 48, 3), 77, np.uint8)
    latents = np.ones((4, 4), np.float16)
    inputs = load_inputs(
        order(
            image=picture(tmp_path, (200, 100, 50)),
            handover=arrays(tmp_path, "handover", image=frame, latents=latents),
            anchor=arrays(tmp_path, "anchor", latents=latents * 2),
        ),
        SPEC,
    )
    assert inputs.image is not None
    assert np.array_equal(inputs.image, frame)
    assert np.array_equal(inputs.handover["latents"], latents)
    assert np.array_equal(inputs.anchor["latents"], latents * 2)


def test_a_windows_keyframe_is_picked_from_the_clip_of_keyframes(tmp_path: Path) -> None:
    rendered, video = clip(tmp_path, 6), clip(tmp_path, 12, first=100)
    inputs = load_inputs(order((7, 8), frames=(("k", 4, 7),), k=rendered, video=video), SPEC)
    assert inputs.image is not None
    assert set(inputs.image.ravel()) == {40}
    assert inputs.video is not None
    assert inputs.video[:, 0, 0, 0].tolist() == [170, 180], "the window is over the input video"


def test_a_window_over_two_clips_begins_with_its_own_keyframe_and_is_interpolated(tmp_path: Path) -> None:
    clips = {"k0": clip(tmp_path, 3, first=40), "k1": clip(tmp_path, 3, first=140)}
    frames = (("k0", 1, 4), ("k0", 2, 6), ("k1", 0, 8))
    photo = picture(tmp_path, (9, 9, 9))
    inputs = load_inputs(
        order((4, 5, 6, 7, 8), frames=frames, image=photo, k0=clips["k0"], k1=clips["k1"]), SPEC
    )
    assert inputs.image is not None
    assert inputs.video is not None
    assert set(inputs.image.ravel()) == {50}, "not the photo"
    assert inputs.video[:, 0, 0, 0].tolist() == [50, 55, 60, 100, 140]


@pytest.mark.parametrize(("width", "height"), [(24, 16), (24, 20), (96, 64)])
def test_frames_of_a_draft_of_another_size_are_scaled_to_the_tasks(
    tmp_path: Path, width: int, height: int
) -> None:
    photo, rendered = picture(tmp_path, (9, 9, 9)), clip(tmp_path, 3, width, height, first=120)
    over = load_inputs(order((2, 2, 2), frames=(("d", 1, 2),), image=photo, d=rendered), SPEC)
    assert over.image is not None
    assert over.video is not None
    assert over.image.shape == (32, 48, 3)
    assert over.video.shape == (3, 32, 48, 3)
    assert over.video[:, 16, 24, 0].tolist() == [130, 130, 130], "a keyframe is refined held still"
    known = (SegmentFrame(segment="d", position=2, frame_index=4),)
    given = load_inputs(
        order((4, 5), image=photo, d=rendered).model_copy(update={"known_frames": known}), SPEC
    )
    assert given.image is not None
    assert given.image.shape == (32, 48, 3)
    assert given.image[16, 24, 0] == 140


def test_the_photo_is_the_first_frame_of_its_shot_and_stands_nowhere_else(tmp_path: Path) -> None:
    photo, rendered = picture(tmp_path, (100, 100, 100)), clip(tmp_path, 3, first=120)
    inputs = load_inputs(order((0, 1, 2), frames=(("k", 0, 2),), image=photo, k=rendered), SPEC)
    assert inputs.image is not None
    assert inputs.video is not None
    assert set(inputs.image.ravel()) == {100}
    assert inputs.video[:, 0, 0, 0].tolist() == [100, 110, 120]
    with pytest.raises(ValueError, match="frame 5 is not between keyframes; they are 0 to 4"):
        load_inputs(order((4, 5), frames=(("k", 0, 4),), image=photo, k=rendered), SPEC)


def test_a_draft_starts_from_what_was_handed_over_and_over_nothing(tmp_path: Path) -> None:
    frame = np.full((32, 48, 3), 77, np.uint8)
    inputs = load_inputs(
        order((35, 40), image=picture(tmp_path, (9, 9, 9)), handover=arrays(tmp_path, "h", image=frame)), SPEC
    )
    assert inputs.image is not None
    assert set(inputs.image.ravel()) == {77}
    assert inputs.video is None


@pytest.mark.parametrize("indices", [(3, 4, 5, 6), (0, 5, 10), (9,), (2, 7, 7)])
def test_a_video_is_read_at_the_tasks_frames(tmp_path: Path, indices: tuple[int, ...]) -> None:
    inputs = load_inputs(order(indices, video=clip(tmp_path, 11, 96, 64)), SPEC)
    assert inputs.video is not None
    assert inputs.video.shape == (len(indices), 32, 48, 3)
    assert inputs.video[:, 0, 0, 0].tolist() == [10 * i for i in indices]


@pytest.mark.parametrize(
    ("fps", "indices", "levels"),
    [
        ("4", (0, 1, 2), [0, 20, 40]),
        ("16", (2, 3, 4, 5), [10, 10, 20, 20]),
        ("12", (0, 1, 2, 3), [0, 0, 10, 20]),
    ],
)
def test_at_another_rate_a_frame_shows_what_the_video_shows_at_its_moment(
    tmp_path: Path, fps: str, indices: tuple[int, ...], levels: list[int]
) -> None:
    inputs = load_inputs(order(indices, fps=Fraction(fps), video=clip(tmp_path, 11)), SPEC)
    assert inputs.video is not None
    assert inputs.video[:, 0, 0, 0].tolist() == levels


def test_the_last_frame_of_a_video_stays_after_its_end(tmp_path: Path) -> None:
    inputs = load_inputs(order((2, 3, 4), video=clip(tmp_path, 4)), SPEC)
    assert inputs.video is not None
    assert inputs.video[:, 0, 0, 0].tolist() == [20, 30, 30]


def test_an_image_that_cannot_be_decoded_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"the stored image .* cannot be decoded"):
        load_inputs(order(image=tmp_path / "broken"), SPEC)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((100, 50), (50, 50)),
        ((50, 100), (50, 50)),
        ((31, 77), (48, 32)),
        ((5, 5), (64, 32)),
        ((48, 32), (48, 32)),
    ],
)
def test_cover_fills_the_size_from_the_middle(source: tuple[int, int], target: tuple[int, int]) -> None:
    width, height = source
    columns = np.abs(np.arange(width) - (width - 1) / 2)
    image = np.repeat(np.repeat(columns[None, :, None], height, 0), 3, 2).astype(np.uint8)
    covered = fitted(image, *target, "crop")
    assert covered.shape == (target[1], target[0], 3)
    left, right = covered[:, 0].mean(), covered[:, -1].mean()
    assert abs(left - right) <= 2, "what stands over is cut evenly"


@pytest.mark.parametrize("fit", FITS)
def test_an_image_of_the_size_is_left_as_it_is(fit: Fit) -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    assert fitted(image, 48, 32, fit) is image


@pytest.mark.parametrize(
    ("source", "fit", "rows", "columns"),
    [
        ((64, 64), "pad", (0, 32), (8, 40)),
        ((96, 32), "pad", (8, 24), (0, 48)),
        ((64, 64), "stretch", (0, 32), (0, 48)),
        ((1, 500), "pad", (0, 32), (23, 24)),
    ],
)
def test_an_image_is_framed_whole_where_it_is_padded_or_stretched(
    source: tuple[int, int], fit: Fit, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    image = np.full((source[1], source[0], 3), 200, np.uint8)
    expected = np.zeros((32, 48, 3), np.uint8)
    expected[slice(*rows), slice(*columns)] = 200
    np.testing.assert_array_equal(fitted(image, 48, 32, fit), expected)


@pytest.mark.parametrize(
    ("fit", "size", "black"), [("crop", (100, 100), 0), ("pad", (150, 100), 5000), ("stretch", (150, 100), 0)]
)
def test_a_whole_image_gets_the_shape_of_the_frames_at_its_own_scale(
    fit: Fit, size: tuple[int, int], black: int
) -> None:
    shaped = in_shape(np.full((100, 100, 3), 200, np.uint8), 48 / 32, fit)
    assert (shaped.shape[1], shaped.shape[0]) == size
    assert int((shaped[..., 0] == 0).sum()) == black


def test_an_order_says_how_its_image_fits(tmp_path: Path) -> None:
    wide = order(image=picture(tmp_path, (200, 0, 0), 96, 32))
    padded = wide.model_copy(update={"task": wide.task.model_copy(update={"fit": "pad"})})
    for spec, shape in ((SPEC, (32, 48)), (WHOLE, (64, 96))):
        image = load_inputs(padded, spec).image
        assert image is not None
        assert image.shape[:2] == shape
        assert image[0].max() == 0
        assert image[shape[0] // 2].min(axis=0).tolist() == [200, 0, 0]


def test_a_spec_decides_nothing_else(tmp_path: Path) -> None:
    assert isinstance(SPEC, EngineSpec)
    path = picture(tmp_path, (200, 100, 50), 48, 32)
    small, whole = load_inputs(order(image=path), SPEC), load_inputs(order(image=path), WHOLE)
    assert small.image is not None
    assert whole.image is not None
    assert np.array_equal(small.image, whole.image)


def test_a_mask_is_white_where_the_video_changes_and_is_read_at_the_same_moments(tmp_path: Path) -> None:
    half = np.zeros((64, 96, 3), np.uint8)
    half[:, 48:] = 200
    cv2.imwrite(str(tmp_path / "half.png"), half)
    video = clip(tmp_path, 20)
    still = load_inputs(order((4, 5), video=video, mask=tmp_path / "half.png"), SPEC).mask
    assert still is not None
    assert still.shape == (2, 32, 48)
    assert (still[:, :, :23].any(), still[:, :, 25:].all()) == (False, True)
    asked = order((11, 13), video=video, mask=clip(tmp_path, 20, first=1))
    moving = load_inputs(asked.model_copy(update={"mask_video": asked.input_video}), SPEC).mask
    assert moving is not None
    assert [bool(frame.all()) for frame in moving] == [False, True], "grey levels 111 and 131"
    assert load_inputs(order(video=video), SPEC).mask is None


def test_a_reference_beside_a_window_is_whole_between_white_bars_and_else_as_it_is(tmp_path: Path) -> None:
    asked = order(image=picture(tmp_path, (9, 9, 9)), shown=picture(tmp_path, (200, 100, 50), 32, 64))
    asked = asked.model_copy(update={"references": ("shown",)})
    (as_it_is,) = load_inputs(asked, SPEC).references
    assert as_it_is.shape == (64, 32, 3)
    beside = SPEC.model_copy(update={"pixels_per_token": 256})
    (shown,) = load_inputs(asked, beside).references
    assert shown.shape == (32, 48, 3)
    assert shown[16, [0, 16, 31, 47]].tolist() == [[255] * 3, [200, 100, 50], [200, 100, 50], [255] * 3]
