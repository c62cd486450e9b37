from __future__ import annotations

import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from farm.capabilities.engine_spec import need_bytes
from farm.planning.render_task import Phase, RenderTask
from nodes.engines.engine import Cancelled, Frames, RenderInputs
from nodes.engines.instant import engine as instant
from nodes.engines.procedural.camera import CameraPath
from nodes.engines.procedural.engine import LEVELS, Procedural, segment_error, spec


def photo(width: int = 200, height: int = 150) -> NDArray[np.uint8]:
    """Smooth coloured texture without black: (height, width, 3)."""
    noise = np.random.default_rng(5).uniform(40, 220, (height, width, 3)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3).astype(np.uint8)


def task(indices: range, **changes: object) -> RenderTask:
    values: dict[str, object] = {
        "model": "procedural",
        "frame_indices": tuple(indices),
        "shot_start": 0,
        "shot_end": 40,
        "height": 64,
        "width": 96,
        "fps": 8.0,
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "seed": 11,
    }
    return RenderTask.model_validate(values | changes)


def quiet(phase: Phase, done: int, total: int) -> None:
    """A report that nobody listens to."""


def render(
    order: RenderTask, *, image: NDArray[np.uint8] | None = None, video: Frames | None = None
) -> Frames:
    inputs = RenderInputs(image=photo() if image is None else image, video=video)
    return Procedural(order.model).render(order, inputs, quiet).frames


def difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.mean(np.abs(np.asarray(a, np.float64) - b)))


def test_a_shot_rendered_in_pieces_equals_the_shot_rendered_whole() -> None:
    whole = render(task(range(0, 40)))
    pieces = [render(task(range(start, start + 8))) for start in (32, 8, 0, 24, 16)]
    assert np.array_equal(np.concatenate([pieces[i] for i in (2, 1, 4, 3, 0)]), whole)


def test_frames_far_apart_are_those_of_the_whole_shot() -> None:
    whole = render(task(range(0, 40)))
    assert np.array_equal(render(task(range(0, 40, 13))), whole[::13])


@pytest.mark.parametrize("model", ["procedural", "procedural-hard"])
def test_the_thread_count_does_not_change_a_byte(model: str) -> None:
    before = cv2.getNumThreads()
    order = task(range(8, 12), model=model, height=256, width=256)
    try:
        results = []
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            results.append(render(order))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_the_seed_decides_the_path_when_the_prompt_does_not() -> None:
    assert difference(render(task(range(8))), render(task(range(8), seed=12))) > 1


@pytest.mark.parametrize("seed", range(6))
def test_motion_is_visible_eased_at_both_ends_and_without_jumps(seed: int) -> None:
    path = CameraPath.plan(task(range(40), seed=seed), photo())
    corners = np.array([[0, 96, 0, 96], [0, 0, 64, 64], [1, 1, 1, 1]], np.float64)
    places = np.stack([path.matrix_at(i) @ corners for i in range(40)])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1).max(axis=1)
    assert steps.sum() > 0.1 * 150
    assert steps[0] < 0.25 * steps.max()
    assert steps[-1] < 0.25 * steps.max()
    assert np.abs(np.diff(steps)).max() < 0.35 * steps.max()


@pytest.mark.parametrize(
    "prompt", ["", "pan left quickly", "tilt up, zoom out", "rotate", "zoom in", "hold still"]
)
@pytest.mark.parametrize("size", [(200, 150), (150, 400), (900, 90), (33, 47)])
@pytest.mark.parametrize("frames", [1, 2, 40, 500])
def test_the_crop_never_leaves_the_image(prompt: str, size: tuple[int, int], frames: int) -> None:
    corners = np.array([[0, 96, 0, 96], [0, 0, 64, 64], [1, 1, 1, 1]], np.float64)
    for seed in range(4):
        path = CameraPath.plan(task(range(1), prompt=prompt, shot_end=frames, seed=seed), photo(*size))
        for index in np.linspace(-1, frames, 60):
            x, y = path.matrix_at(float(index)) @ corners
            assert -1e-6 <= x.min() <= x.max() <= size[0] + 1e-6
            assert -1e-6 <= y.min() <= y.max() <= size[1] + 1e-6


@pytest.mark.parametrize(
    ("prompt", "axis", "sign"),
    [
        ("pan left", 0, -1),
        ("Pan slowly to the right", 0, 1),
        ("the camera pans up", 1, -1),
        ("tilt down", 1, 1),
    ],
)
def test_pan_words_move_the_crop_that_way(prompt: str, axis: int, sign: int) -> None:
    path = CameraPath.plan(task(range(40), prompt=prompt), photo())
    centre = np.array([48, 32, 1], np.float64)
    travel = (path.matrix_at(39) - path.matrix_at(0)) @ centre
    assert sign * travel[axis] > 3
    assert travel[1 - axis] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("prompt", "grows"), [("zoom in", False), ("slow zoom out", True)])
def test_zoom_words_change_the_size_of_the_crop(prompt: str, grows: bool) -> None:
    path = CameraPath.plan(task(range(40), prompt=prompt), photo())
    ratio = path.matrix_at(39)[0, 0] / path.matrix_at(0)[0, 0]
    assert ratio > 1.05 if grows else ratio < 0.95


def test_quickly_goes_further_than_slowly() -> None:
    def travel(prompt: str) -> float:
        path = CameraPath.plan(task(range(40), prompt=prompt, shot_end=17), photo())
        return float((path.matrix_at(16) - path.matrix_at(0))[0, 2])

    assert travel("pan right quickly") > 1.5 * travel("pan right") > 2 * travel("pan right slowly")


def test_hold_still_gives_the_same_frame_every_time() -> None:
    frames = render(task(range(40), prompt="hold still"))
    assert all(np.array_equal(frame, frames[0]) for frame in frames)


def test_a_still_crop_of_the_images_own_shape_and_size_is_the_image() -> None:
    image = photo(96, 64)
    assert np.array_equal(render(task(range(1), prompt="hold still"), image=image)[0], image)


def test_a_large_image_is_reduced_without_moving_it() -> None:
    small = photo(96, 64)
    large = cv2.resize(small, (960, 640), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    frame = render(task(range(1), prompt="hold still"), image=large)[0]
    assert difference(frame[None], small[None]) < 2


@pytest.mark.parametrize("model", [m for m in LEVELS if m != "procedural"])
def test_the_first_segment_of_a_shot_is_exact_and_later_ones_stray(model: str) -> None:
    exact = render(task(range(0, 16)))
    assert np.array_equal(render(task(range(0, 8), model=model)), exact[:8])
    assert difference(render(task(range(8, 16), model=model)), exact[8:]) > 1


def test_a_harder_model_strays_further() -> None:
    exact = render(task(range(8, 16)))
    mild, typical, hard = (
        difference(render(task(range(8, 16), model=f"procedural-{level}")), exact)
        for level in ("mild", "typical", "hard")
    )
    assert mild < typical < hard


@pytest.mark.parametrize(("model", "rms_px"), [("mild", 0.7), ("typical", 2.0), ("hard", 5.0)])
def test_the_known_error_has_the_magnitudes_of_its_level(model: str, rms_px: float) -> None:
    level = LEVELS[f"procedural-{model}"]
    error = segment_error(task(range(8, 16), width=512, height=512), f"procedural-{model}")
    assert level is not None
    assert error is not None
    assert np.sqrt(np.mean(np.sum(error.displacement**2, axis=-1))) == pytest.approx(2 * rms_px, rel=1e-3)
    assert np.linalg.norm(error.shift) == pytest.approx(level.lab_shift)
    assert abs(error.contrast - 1) == pytest.approx(level.contrast)
    assert error.slip_frames in level.slips
    slope = np.linalg.norm(np.diff(error.displacement, axis=1), axis=-1).max()
    assert slope < 0.06 * rms_px, "the field must be smooth"


def test_undoing_the_known_error_gives_the_exact_frame_back() -> None:
    order = task(range(8, 9), model="procedural-mild", height=128, width=128)
    error = segment_error(order, order.model)
    assert error is not None
    frame = render(order)[0]
    lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) - np.array(error.shift, np.float32)
    middle = np.array([50, 0, 0], np.float32)
    colour = cv2.cvtColor(((lab - middle) / error.contrast + middle).astype(np.float32), cv2.COLOR_Lab2RGB)
    y, x = np.indices((128, 128), dtype=np.float32)
    back_x, back_y = x - error.displacement[..., 0], y - error.displacement[..., 1]
    undone = np.asarray(cv2.remap(colour, back_x, back_y, cv2.INTER_CUBIC), np.float64) * 255
    exact = render(task(range(8, 9), height=128, width=128))[0]
    inside = (slice(4, -4), slice(4, -4))
    assert difference(undone[inside], exact[inside]) < 0.3 * difference(frame[inside], exact[inside])


def test_another_take_strays_another_way_and_the_same_take_repeats_itself() -> None:
    first, again, retake = (
        render(task(range(8, 10), model="procedural-typical", take=take)) for take in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert difference(first, retake) > 1


@pytest.mark.parametrize("look", ["pencil", "watercolour", "cartoon", "noir"])
def test_each_look_changes_a_video_frame_by_frame(look: str) -> None:
    video = np.stack([photo(96, 64), photo(96, 64)[::-1], photo(96, 64)])
    drawn = render(task(range(3), prompt=f"as a {look} picture", strength=1.0), video=video)
    assert difference(drawn, video) > 2
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1])


def test_watercolour_is_the_look_without_a_word_and_both_spellings_name_it() -> None:
    video = photo(96, 64)[None]
    drawn = [render(task(range(1), prompt=p), video=video) for p in ("", "watercolor", "watercolour")]
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2])


def test_strength_blends_the_look_with_the_source() -> None:
    video = photo(96, 64)[None]
    full, half, tiny = (
        render(task(range(1), prompt="noir", strength=s), video=video) for s in (1.0, 0.5, 0.001)
    )
    assert difference(half, (full.astype(np.float64) + video) / 2) < 0.6
    assert difference(tiny, video) < 0.6


def test_a_restyled_segment_strays_like_any_other() -> None:
    video = np.stack([photo(96, 64)] * 2)
    exact = render(task(range(8, 10)), video=video)
    assert difference(render(task(range(8, 10), model="procedural-typical"), video=video), exact) > 1


def test_the_handover_is_the_frame_at_its_index() -> None:
    order = task(range(8, 16), handover_index=5)
    rendered = Procedural().render(order, RenderInputs(image=photo()), quiet)
    assert np.array_equal(rendered.handover["image"], rendered.frames[5])
    assert not Procedural().render(task(range(2)), RenderInputs(image=photo()), quiet).handover


def test_a_cancel_between_frames_stops_the_render() -> None:
    seen: list[int] = []

    def report(phase: Phase, done: int, total: int) -> None:
        seen.append(done)
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        Procedural().render(task(range(8)), RenderInputs(image=photo()), report)
    assert seen == [0, 1, 2]


def test_neither_image_nor_video_is_refused() -> None:
    with pytest.raises(ValueError, match="neither image nor video"):
        Procedural().render(task(range(2)), RenderInputs(), quiet)


def test_a_video_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"video: got shape \(2, 150, 200, 3\), expected \(3, 64, 96, 3\)"):
        render(task(range(3)), video=np.stack([photo()] * 2))


def test_an_unknown_model_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"procedural-wild.*procedural-hard"):
        spec("procedural-wild")


def test_the_need_covers_the_frames_and_the_largest_image() -> None:
    known = spec("procedural")
    shape = task(range(64), height=1024, width=1024).shape
    assert need_bytes(known, known.rungs[0], shape) > 2 * 64 * 1024 * 1024 * 3 + 4096 * 4096 * 3


@pytest.mark.slow
def test_importing_the_engine_does_not_import_torch() -> None:
    code = "import sys, nodes.engines.procedural, nodes.engines.instant; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_instant_engine_returns_frames_of_the_size_asked_for() -> None:
    order = task(range(8), model="instant", handover_index=3)
    rendered = instant.Instant().render(order, RenderInputs(), quiet)
    assert rendered.frames.shape == (8, 64, 96, 3)
    assert rendered.frames.dtype == np.uint8
    assert rendered.frames.min() >= 64
    assert rendered.frames.std() > 10
    assert rendered.handover["image"].shape == (64, 96, 3)
