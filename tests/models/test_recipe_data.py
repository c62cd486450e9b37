"""What a recipe trains with: cameras, pictures, and an optimizer."""

from __future__ import annotations

import torch

from models.tiny_wan.recipe.data.camera import MOTIONS, film, parameters, stays_in_view, view_points
from models.tiny_wan.recipe.data.pictures import (
    HELD_OUT_PHOTOGRAPHS,
    HELD_OUT_SEED,
    TRAINING_PHOTOGRAPHS,
    Atlas,
    procedural_pictures,
)
from models.tiny_wan.recipe.trainer import orthogonal


def points_of(motion: str, seconds: float = 1.0, side: int = 32) -> torch.Tensor:
    times = torch.tensor([[0.0, seconds]])
    return view_points(parameters([MOTIONS[motion]], "cpu"), times, side, side)


def test_every_view_starts_where_the_picture_stands() -> None:
    for motion in MOTIONS:
        first = points_of(motion)[0, 0]
        assert first[0, 0].tolist() == [-15.5, -15.5]
        assert first[31, 31].tolist() == [15.5, 15.5]


def test_a_pan_to_the_right_looks_further_right_after_a_second() -> None:
    before, after = points_of("right")[0]
    assert torch.allclose(after - before, torch.tensor([16.0, 0.0]))


def test_zooming_in_shows_a_smaller_part_and_out_a_larger_one() -> None:
    widths = {m: float(points_of(m)[0, 1, 0, -1, 0] - points_of(m)[0, 1, 0, 0, 0]) for m in ("in", "out")}
    assert widths["in"] < 31 < widths["out"]


def test_what_a_pan_brings_into_the_frame_was_not_in_view() -> None:
    seen = stays_in_view(points_of("right"))[0, 1]
    assert seen[:, :16].all()
    assert not seen[:, 16:].any()


def test_a_still_camera_films_the_picture_itself() -> None:
    picture = torch.rand(1, 3, 64, 64)
    clip = film(picture, points_of("still"), torch.tensor([[31.5, 31.5]]), torch.ones(1))
    assert torch.allclose(clip[0, 1], picture[0, :, 16:48, 16:48], atol=1e-5)


def test_pictures_are_the_same_for_the_same_seed_and_held_out_ones_are_others() -> None:
    first, again = (procedural_pictures(2, 48, 3, "cpu") for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, procedural_pictures(2, 48, HELD_OUT_SEED, "cpu"))


def test_no_held_out_photograph_is_trained_on() -> None:
    assert not set(TRAINING_PHOTOGRAPHS) & set(HELD_OUT_PHOTOGRAPHS)


def test_an_atlas_films_small_sharp_pictures_and_large_ones() -> None:
    atlas = Atlas(procedural_pictures(4, 64, 1, "cpu"))
    points = view_points(torch.zeros(8, 4), torch.zeros(8, 1), 16, 16)
    clip = atlas.film(points, torch.full((8, 2), 0.5), torch.ones(8), torch.Generator().manual_seed(0))
    assert clip.shape == (8, 1, 3, 16, 16)
    assert clip.abs().max() <= 1
    assert atlas.small.shape[-1] == 32


def test_muon_moves_all_directions_alike() -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonal(torch.randn(2, 24, 40)).float())
    assert singular.min() > 0.5
    assert singular.max() < 1.5
