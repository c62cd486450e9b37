"""The stage in which tiny_wan learns texture: who judges it, what it is held to, how known frames come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.architecture import new_transformer, new_vae
from models.tiny_wan.recipe.checkpoint import deliver, deliver_module
from models.tiny_wan.recipe.clips import Prompts
from models.tiny_wan.recipe.data.camera import MOTIONS, film, parameters, view_points
from models.tiny_wan.recipe.data.pictures import Atlas
from models.tiny_wan.recipe.parts import state_of
from models.tiny_wan.recipe.scenes import Scenes, Shape
from models.tiny_wan.recipe.texture import stage as stage_module
from models.tiny_wan.recipe.texture.discriminator import Discriminator, drawn_pairs, judging_loss
from models.tiny_wan.recipe.texture.stage import (
    TextureStage,
    TextureTrainer,
    detail_errors,
    rough_errors,
)
from models.tiny_wan.recipe.texture.worn import MOVED_BY_CAMERA, WornClipMaker

pytestmark = pytest.mark.slow

MODEL = Path(__file__).resolve().parents[2] / "models" / "tiny_wan"
SHAPE = Shape(9, 32, 32, 4)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts(MODEL, "cpu", each=1, seed=0)


@pytest.fixture(scope="module")
def clips(prompts: Prompts) -> WornClipMaker:
    torch.manual_seed(0)
    vae = new_vae(encoder_width=4, decoder_width=4, channels=8).eval().requires_grad_(False)
    whole_clip.prepare(vae)
    generator = torch.Generator().manual_seed(1)
    pictures = Atlas(torch.randint(0, 256, (3, 3, 64, 64), generator=generator, dtype=torch.uint8))
    scenes = Scenes(pictures, torch.Generator().manual_seed(2), textures=2)
    return WornClipMaker(scenes, prompts, vae, seed=0)


def filmed(
    motion: str, *, frames: int = 9, side: int = 32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A clip (1, 3, F, side, side) of a smooth picture, its camera and the seconds of its frames."""
    noise = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    picture = F.interpolate(noise, scale_factor=6, mode="bicubic")
    camera, times = parameters([MOTIONS[motion]], "cpu"), torch.arange(frames)[None] / 8
    points = view_points(camera, times, side, side)
    clip = film(picture, points, torch.tensor([[71.5, 71.5]]), torch.ones(1)).transpose(1, 2)
    return clip, camera, times


@pytest.mark.parametrize("motion", ["left", "down", "in", "clockwise", "still"])
def test_the_second_frame_of_a_pair_is_brought_to_where_the_first_one_was_filmed(motion: str) -> None:
    clip, camera, times = filmed(motion)
    seen = torch.ones(1, 1, 3, 4, 4)
    pairs = drawn_pairs(camera, times, seen, 12, torch.Generator().manual_seed(0)).of(clip)
    first, second, shows = pairs[:, :3], pairs[:, 3:6], pairs[:, 6:7]
    assert float(shows.mean()) > 0.3
    assert float(((first - second).abs() * shows).max()) < 0.06
    if motion != "still":
        apart = (clip[:, :, 8] - clip[:, :, 0]).abs().max()
        assert float(apart) > 0.2


def test_a_pair_tells_what_known_frames_show_of_its_first_frame() -> None:
    clip, camera, times = filmed("left")
    seen = torch.zeros(1, 1, 3, 4, 4)
    seen[:, :, 2] = 1
    drawn = drawn_pairs(camera, times, seen, 12, torch.Generator().manual_seed(0))
    known = drawn.of(clip)[:, 7].mean((1, 2))
    assert torch.equal(known > 0.5, drawn.here[0] > 4)


def test_who_judges_learns_to_tell_blurred_frames_from_sharp_ones() -> None:
    torch.manual_seed(0)
    judge, generator = Discriminator((8, 8, 8)), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(judge.parameters(), 3e-3)
    right = torch.zeros(())
    for _ in range(25):
        true = torch.rand(4, 8, 32, 32, generator=generator)
        _, right = (loss := judging_loss(judge, true, F.avg_pool2d(true, 3, 1, 1), generator))
        optimizer.zero_grad()
        loss[0].backward()
        optimizer.step()
    assert float(right) > 0.9


def test_only_the_rough_colours_of_what_nobody_can_know_are_held_to_the_truth() -> None:
    true, seen = torch.rand(1, 3, 5, 64, 64), torch.zeros(1, 1, 2, 8, 8)
    other = true.flip(-1)  # another picture of the same colours
    darker = true - 0.3
    assert float(rough_errors(other, true, seen)) < 0.01 * float(rough_errors(darker, true, seen))
    assert float(rough_errors(darker, true, torch.ones_like(seen))) == 0.0


def test_detail_is_missed_where_known_frames_show_it_and_neither_may_there_be_too_much() -> None:
    true, seen, one = torch.rand(1, 3, 5, 64, 64), torch.zeros(1, 1, 2, 8, 8), torch.ones(1)
    seen[..., :4] = 1
    blurred = F.avg_pool2d(true.transpose(1, 2).flatten(0, 1), 3, 1, 1).view(1, 5, 3, 64, 64).transpose(1, 2)
    half = torch.cat([blurred[..., :32], true[..., 32:]], -1)
    assert float(detail_errors(true.flip(-2), true, seen, one)) < 0.01
    assert float(detail_errors(half, true, seen, one)) > 0.3
    assert float(detail_errors(half, true, 1 - seen, one)) < 0.01
    assert float(detail_errors(2 * true, true, seen, one)) > 0.3


def test_known_frames_are_often_worn_and_what_is_to_be_made_never_is(clips: WornClipMaker) -> None:
    known = torch.zeros(12, 9)
    known[:, 0] = 1
    batch = clips.make(Shape(9, 32, 32, 12), known)
    as_filmed = clips._latents(batch.frames * known[:, None, :, None, None])
    worn = (batch.condition - as_filmed).abs().amax((1, 2, 3, 4)) > 1e-3
    assert 0 < int(worn.sum()) < 12
    assert torch.allclose(batch.latents, clips._latents(batch.frames), atol=1e-5)
    assert torch.allclose(batch.shown, clips._decoded(batch.latents), atol=1e-5)


def test_frames_that_were_made_are_filmed_and_are_themselves_the_detail_that_is_wanted(
    clips: WornClipMaker,
) -> None:
    made = torch.full((2, 3, 32, 32), 0.25)
    batch = clips.make(Shape(9, 32, 32, 24), made=made)
    assert 0 < int(batch.own.sum()) < 24
    assert int(batch.asked[batch.own].max()) < MOVED_BY_CAMERA
    for frames in (batch.frames, batch.shown):
        assert torch.allclose(frames[batch.own], torch.tensor(0.25), atol=1e-4)
        assert float(frames[~batch.own].std()) > 0.05


def texture_trainer(clips: WornClipMaker) -> TextureTrainer:
    nothing: Any = None
    stage = TextureStage(1.0, ((SHAPE, 1.0),))
    return TextureTrainer(
        stage,
        clips,
        nothing,
        nothing,
        rank=0,
        world=1,
        seed=0,
        make=lambda: new_transformer(heads=1, layers=1, channels=8),
        widths=(8, 8, 8),
    )


def test_the_stage_learns_from_its_own_steps_and_from_who_judges_them(
    clips: WornClipMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stage_module, "PAIRED_PIXELS", 2 * 32 * 32)
    monkeypatch.setattr(stage_module, "OWN_LEAST", 1)
    monkeypatch.setattr(stage_module, "OWN_FROM_STEP", 1)
    trainer = texture_trainer(clips)
    before = [
        [w.detach().clone() for w in part.parameters()] for part in (trainer.model, trainer.discriminator)
    ]
    held = torch.cat([trainer.learn(SHAPE) for _ in range(3)])
    assert held.isfinite().all()
    assert trainer.step == trainer.judged == len(held) == 12
    for was, part in zip(before, (trainer.model, trainer.discriminator), strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(was, part.parameters(), strict=True))
    assert trainer.made[32, 32].shape[1:] == (3, 32, 32)

    deliver(trainer.state(), tmp_path / "carry", "texture")
    deliver_module(trainer.discriminator, tmp_path / "carry", "discriminator")
    carried = state_of("texture", tmp_path, tmp_path / "no model", "cpu")
    assert carried is not None
    again = texture_trainer(clips)
    again.load_state(carried)
    assert again.step == 12
    for mine, theirs in (
        (again.weights, trainer.average),
        (again.discriminator.parameters(), trainer.discriminator.parameters()),
    ):
        assert all(torch.allclose(a, b, atol=2e-3) for a, b in zip(mine, theirs, strict=True))


def test_the_stage_begins_with_the_transformer_of_the_model() -> None:
    state = state_of("texture", Path("nowhere"), MODEL, "cpu")
    transformer = state_of("transformer", Path("nowhere"), MODEL, "cpu")
    assert state is not None
    assert transformer is not None
    assert all(torch.equal(a, b) for a, b in zip(state["weights"], transformer["weights"], strict=True))
