from __future__ import annotations

import numpy as np
import pytest

from nodes.engines.common.noise import causal_indices, frame_noise

SHAPE = (4, 6, 8)
GOLDEN = [-1.1178641319274902, 0.2053850144147873, -0.643168032169342, 1.2751065492630005]


def test_overlapping_windows_start_from_the_same_noise_where_they_overlap() -> None:
    left = frame_noise(11, range(0, 8), SHAPE)
    right = frame_noise(11, range(5, 13), SHAPE)
    assert np.array_equal(left[5:], right[:3])


def test_causal_windows_share_the_noise_of_the_latents_they_share_but_not_of_one_frame() -> None:
    left = frame_noise(11, causal_indices(range(0, 17), 4), SHAPE)
    right = frame_noise(11, causal_indices(range(8, 25), 4), SHAPE)
    assert len(left) == len(right) == 5
    assert np.array_equal(left[3:], right[1:3])
    assert not np.array_equal(left[2], right[0])


def test_a_frame_keeps_its_noise_whatever_order_or_window_asks_for_it() -> None:
    assert np.array_equal(frame_noise(3, [40, 7], SHAPE)[::-1], frame_noise(3, [7, 40], SHAPE))


@pytest.mark.parametrize("other", [{"seed": 2}, {"noise_level": 1}, {"take": 1}, {"frame_indices": [1]}])
def test_another_seed_level_take_or_frame_draws_other_noise(other: dict[str, object]) -> None:
    base = {"seed": 1, "frame_indices": [0], "shape": SHAPE}
    first, second = frame_noise(**base), frame_noise(**{**base, **other})  # type: ignore[arg-type]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3


def test_the_noise_is_standard_normal_float32() -> None:
    noise = frame_noise(5, range(16), (4, 32, 32))
    assert noise.dtype == np.float32
    assert noise.shape == (16, 4, 32, 32)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_the_numbers_are_the_ones_every_other_worker_draws() -> None:
    drawn = frame_noise(2**64 - 1, [1_000_000], (1, 1, 4), noise_level=2, take=3)
    assert drawn.ravel().tolist() == GOLDEN


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"take": 4096}, "take is 4096"),
        ({"frame_indices": [-1]}, "frame index is -1"),
    ],
)
def test_a_number_outside_its_field_is_refused_by_name(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        frame_noise(**{"seed": 0, "frame_indices": [0], "shape": SHAPE, **arguments})  # type: ignore[arg-type]
