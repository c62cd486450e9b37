"""What tiny_i2v is trained with: cameras, pictures, clips, and the shortcuts of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.tiny_i2v.recipe.architecture import new_unet
from models.tiny_i2v.recipe.camera import MOTIONS, film, parameters, stays_in_view, view_points
from models.tiny_i2v.recipe.muon import orthogonal
from models.tiny_i2v.recipe.pictures import (
    HELD_OUT_PHOTOGRAPHS,
    HELD_OUT_SEED,
    TRAINING_PHOTOGRAPHS,
    Atlas,
    procedural_pictures,
)
from models.tiny_i2v.recipe.train import collect, deliver
from models.tiny_i2v.recipe.unet import prepare
from nodes.engines.i2vgen_xl.conditioning import with_frame_clock


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


def test_the_frame_clock_of_a_batch_is_that_of_each_clip() -> None:
    first = torch.randn(2, 4, 3, 5)
    each = [with_frame_clock(one[None], 8) for one in first]
    assert torch.equal(with_frame_clock(first, 8), torch.cat(each))


@pytest.mark.slow
def test_what_trains_fast_computes_the_same() -> None:
    torch.manual_seed(0)
    unet = new_unet().eval()
    for name, weight in unet.named_parameters():
        if ".conv4." in name:  # made as zeros: the temporal convolutions would do nothing
            torch.nn.init.normal_(weight, std=0.05)
    inputs = {
        "sample": torch.randn(1, 4, 8, 8, 8),
        "timestep": torch.tensor([500]),
        "fps": torch.tensor([8.0]),
        "image_latents": torch.randn(1, 4, 8, 8, 8),
        "image_embeddings": torch.randn(1, 1, 128),
        "encoder_hidden_states": torch.randn(1, 77, 128),
    }
    with torch.no_grad():
        plain = unet(**inputs).sample
        prepare(unet)
        fast = unet(**inputs).sample
    assert torch.allclose(plain, fast, atol=1e-4)
    assert plain.std() > 0.1


def test_muon_moves_all_directions_alike() -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonal(torch.randn(2, 24, 40)).float())
    assert singular.min() > 0.5
    assert singular.max() < 1.5


def test_a_delivered_checkpoint_is_collected_whole(tmp_path: Path) -> None:
    weights = [torch.randn(size) for size in (7, 300, 5, 400)]
    deliver({"average": weights, "step": 42}, tmp_path)
    state = collect(tmp_path)
    assert state["step"] == 42
    for own, back in zip(weights, state["weights"], strict=True):
        assert torch.allclose(own, back.float(), atol=2e-3)
