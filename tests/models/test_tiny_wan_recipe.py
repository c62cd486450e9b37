"""What tiny_wan is trained with: whole clips, scenes, prompts, masks, stages that go on after a stop."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from transformers import AutoTokenizer, T5TokenizerFast, UMT5EncoderModel

from farm.planning.prompt_notes import words_read
from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.architecture import new_scheduler, new_transformer, new_vae, sigmas_of
from models.tiny_wan.recipe.asked import KINDS, RATES, Asked, thing_motion, told_rate, with_rate
from models.tiny_wan.recipe.checkpoint import collect, deliver
from models.tiny_wan.recipe.clips import (
    MASKS,
    ClipMaker,
    Prompts,
    known_frames,
    latent_mask,
    random_masks,
)
from models.tiny_wan.recipe.data.camera import film, parameters, stays_in_view, view_points
from models.tiny_wan.recipe.data.pictures import Atlas
from models.tiny_wan.recipe.parts import export, save_part, state_of
from models.tiny_wan.recipe.prompts import random_prompt
from models.tiny_wan.recipe.scenes import ALL_ASKED, Scenes, Shape, within_reach
from models.tiny_wan.recipe.text import IGNORED, LENGTH, Budget, answers, train
from models.tiny_wan.recipe.train import FACTS
from models.tiny_wan.recipe.transformer import (
    STEPS,
    TransformerStage,
    TransformerTrainer,
    clip_errors,
    generate,
    log_errors,
    pixel_errors,
    random_sigmas,
)
from models.tiny_wan.recipe.vae import Phase, VaeStage, VaeTrainer
from nodes.engines import spec_of

MODEL = Path(__file__).resolve().parents[2] / "models" / "tiny_wan"


def small_vae() -> Any:
    torch.manual_seed(0)
    return new_vae(encoder_width=4, decoder_width=4, channels=8)


def small_transformer() -> Any:
    return new_transformer(heads=1, layers=1, channels=8)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The sums are small: threads would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures() -> Atlas:
    generator = torch.Generator().manual_seed(1)
    return Atlas(torch.randint(0, 256, (3, 3, 64, 64), generator=generator, dtype=torch.uint8))


def scenes_of(pictures: Atlas) -> Scenes:
    return Scenes(pictures, torch.Generator().manual_seed(2), textures=2)


# --- whole clips ---


@torch.no_grad()
def test_the_vocabulary_in_its_farm_json_has_a_word_of_almost_every_prompt_that_asks_for_something() -> None:
    spec = spec_of("tiny_wan")
    assert {name: list(words) for name, words in spec.vocabulary.items()} == FACTS["vocabulary"]
    words = random.Random(3)
    wanted = [asked for asked in ALL_ASKED if asked.moves or asked.thing != "none"]
    prompts = [
        random_prompt(words, asked, held_out=held_out) for asked in wanted for held_out in (False, True)
    ]
    unread = [prompt for prompt in prompts if not words_read(prompt, spec)[0]]
    assert len(unread) <= 0.01 * len(prompts), unread


@pytest.mark.slow
def test_whole_clips_are_encoded_and_decoded_as_the_stock_loop_does_it() -> None:
    vae = small_vae().eval()
    clip = torch.rand(1, 3, 9, 32, 48) * 2 - 1
    latents = vae.encode(clip).latent_dist.mode()
    frames = vae.decode(latents).sample
    whole_clip.prepare(vae)
    assert torch.allclose(whole_clip.encode(vae, clip)[0], latents, atol=1e-5)
    assert torch.allclose(whole_clip.decode(vae, latents).clamp(-1, 1), frames, atol=1e-5)
    again = vae.encode(clip).latent_dist.mode()  # the stock loop still works
    assert torch.allclose(again, latents, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_picture_is_the_first_frame_of_a_clip() -> None:
    vae = small_vae().eval()
    whole_clip.prepare(vae)
    clip = torch.rand(2, 3, 5, 32, 32) * 2 - 1
    alone, _ = whole_clip.encode(vae, clip[:, :, :1])
    assert torch.allclose(alone, whole_clip.encode(vae, clip)[0][:, :, :1], atol=1e-5)
    assert torch.allclose(
        whole_clip.decode(vae, alone),
        whole_clip.decode(vae, whole_clip.encode(vae, clip)[0])[:, :, :1],
        atol=1e-5,
    )


@pytest.mark.slow
@torch.no_grad()
def test_an_untrained_autoencoder_rebuilds_a_still_clip_alike_in_every_frame() -> None:
    vae = small_vae()
    whole_clip.start_simple(vae)
    whole_clip.prepare(vae)
    still = (torch.rand(1, 3, 1, 32, 32) * 2 - 1).expand(-1, -1, 9, -1, -1)
    made = whole_clip.decode(vae, whole_clip.encode(vae, still)[0])
    assert torch.allclose(made, made[:, :, :1].expand_as(made), atol=1e-5)


# --- what is asked ---


def test_the_rate_is_told_as_the_nearest_in_ratio_and_stands_first() -> None:
    assert [told_rate(fps) for fps in (0.1, 0.5, 7.0, 9.5, 100.0)] == [0.5, 0.5, 8.0, 10.0, 24.0]
    assert with_rate("pan left", 0.75) == "0.75 frames a second: pan left"


def test_a_combination_moves_as_both_its_parts() -> None:
    motion = Asked(("right", "in"), "quick").motion
    assert (motion.right, motion.zoom, motion.down, motion.roll) == (32.0, 0.4, 0.0, 0.0)


def test_answers_name_every_axis_the_pace_the_depth_the_thing_and_the_rate() -> None:
    assert answers(Asked(("left", "out"), "slow"), 8.0) == [1, 0, 2, 0, 0, 0, 0, RATES.index(8.0)]
    assert answers(Asked(("up",), "quick", parallax=True), 0.5) == [0, 1, 0, 0, 2, 1, 0, 0]
    assert answers(Asked(("still",), thing="snow"), 24.0) == [0, 0, 0, 0, IGNORED, 0, 1, len(RATES) - 1]


def test_what_slides_to_the_right_moves_to_the_right() -> None:
    picture = torch.zeros(1, 1, 65, 65)
    picture[..., 30:35] = 1.0
    points = view_points(parameters([thing_motion("slide right")], "cpu"), torch.tensor([[0.0, 1.0]]), 64, 64)
    before, after = film(picture, points, torch.tensor([[32.0, 32.0]]), torch.ones(1))[0, :, 0].mean(1)
    assert int(after.argmax()) - int(before.argmax()) == pytest.approx(16, abs=2)


@pytest.mark.parametrize("held_out", [False, True])
def test_prompts_say_what_they_ask_for(held_out: bool) -> None:
    rng = random.Random(3)
    said = {
        asked: [random_prompt(rng, asked, held_out=held_out).lower() for _ in range(30)]
        for asked in (
            Asked(("still",), thing="snow"),
            Asked(("left",), parallax=True),
            Asked(("right", "in")),
        )
    }
    snow, depth, both = said.values()
    for prompts, words in (
        (snow, ("snow", "flake")),
        (depth, ("parallax", "foreground", "near")),
        (both, ("right",)),
    ):
        # A letter may be wrong here and there.
        assert sum(any(word in prompt for word in words) for prompt in prompts) > 25


def test_scenery_asks_for_nothing_that_the_model_would_do() -> None:
    rng = random.Random(4)
    for _ in range(400):
        prompt = random_prompt(rng, Asked(("still",))).lower()
        assert "snow falling" not in prompt
        assert "object" not in prompt


# --- scenes ---


def test_a_batch_has_all_kinds_and_the_size_it_should_have(pictures: Atlas) -> None:
    scene = scenes_of(pictures).make(Shape(5, 32, 48, 40))
    assert scene.frames.shape == (40, 3, 5, 32, 48)
    assert scene.seen.shape == (40, 5, 32, 48)
    assert scene.frames.abs().max() <= 1.001
    asked = [ALL_ASKED[place] for place in scene.asked.tolist()]
    assert any(a.parallax for a in asked)
    assert {a.thing for a in asked} > {"none"}
    assert any(len(a.camera) == 2 for a in asked)


def test_the_first_frame_shows_all_of_itself(pictures: Atlas) -> None:
    for kind in KINDS:
        scene = scenes_of(pictures).make(Shape(5, 32, 32, 6), {kind: 1.0}, dense=1.0)
        assert scene.seen[:, 0].min() > (0.99 if kind in ("plain", "combined") else 0.4)


def test_what_a_pan_brings_into_view_is_not_known(pictures: Atlas) -> None:
    scene = scenes_of(pictures).make(Shape(17, 32, 32, 60), {"plain": 1.0})
    pans = [row for row, place in enumerate(scene.asked.tolist()) if ALL_ASKED[place].camera == ("right",)]
    assert pans
    assert scene.seen[pans, 0].all()
    assert not scene.seen[pans, -1, :, -1].any()


@pytest.mark.parametrize(
    "asked",
    [Asked(("right",), "quick"), Asked(("up",)), Asked(("out",), "quick"), Asked(("clockwise", "in"))],
)
def test_what_the_first_frame_reaches_is_what_it_shows(asked: Asked) -> None:
    motion, times = parameters([asked.motion], "cpu"), torch.arange(9)[None] / 4.0
    shown = stays_in_view(view_points(motion, times, 64, 48))[0]
    known = torch.zeros(1, 9)
    known[:, 0] = 1
    assert (within_reach(motion, times, known, 64, 48)[0] == shown).float().mean() > 0.97
    known[:, 8] = 1
    both = within_reach(motion, times, known, 64, 48)[0]
    assert both[0].all()
    assert both[8].all()
    assert both.float().mean() > shown.float().mean()


# --- masks ---


@pytest.mark.parametrize(
    ("kind", "frames", "known"),
    [
        ("first", 17, [0]),
        ("ends", 9, [0, 8]),
        ("last", 17, [16]),
        ("prefix", 17, [0, 1, 2, 3, 4]),
        ("clips", 17, [0, 1, 2, 3, 4, 12, 13, 14, 15, 16]),
        ("clips", 9, [0, 1, 2, 3, 5, 6, 7, 8]),
    ],
)
def test_known_frames_of_a_mask(kind: str, frames: int, known: list[int]) -> None:
    assert known_frames(kind, frames, random.Random(0)) == known


def test_a_keyframe_in_the_middle_stands_between_the_ends() -> None:
    for seed in range(20):
        first, middle, *_ = known_frames("middle", 33, random.Random(seed))
        assert first == 0
        assert 0 < middle < 32


def test_masks_of_all_kinds_are_drawn() -> None:
    drawn = {tuple(row.nonzero().flatten().tolist()) for row in random_masks(200, 17, random.Random(0))}
    assert {(0,), (0, 16), (16,), (0, 1, 2, 3, 4)} < drawn
    assert sum(MASKS.values()) == pytest.approx(1)


def test_the_mask_of_latents_is_folded_as_the_pipelines_fold_it() -> None:
    known = torch.tensor([[1.0, 0, 0, 0, 1, 0, 0, 0, 1]])
    assert latent_mask(known)[0].T.tolist() == [[1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]]


# --- the flow ---


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_levels_of_noise_are_those_of_the_scheduler(steps: int) -> None:
    scheduler = new_scheduler()
    scheduler.set_timesteps(steps)
    assert sigmas_of(steps) == pytest.approx(scheduler.sigmas.tolist(), abs=1e-3)


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_the_scheduler_takes_the_steps_that_the_model_was_trained_on(steps: int) -> None:
    def velocity(latents: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.tanh(latents) * sigma + 0.3 * latents

    scheduler = new_scheduler()
    scheduler.set_timesteps(steps)
    told = euler = torch.randn(1, 8, 2, 3, 3)
    for time in scheduler.timesteps:
        told = scheduler.step(velocity(told, float(time) / 1000), time, told).prev_sample
    for now, then in itertools.pairwise(sigmas_of(steps)):
        euler = euler + (then - now) * velocity(euler, now)
    assert torch.allclose(told, euler, atol=5e-3)


class Knows(torch.nn.Module):
    """A transformer that knows the clip: the velocity from it to the noise, at any level."""

    def __init__(self, latents: torch.Tensor, noise: torch.Tensor) -> None:
        super().__init__()
        self.velocity = noise - latents

    def forward(self, *_: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        return (self.velocity,)


def test_who_knows_the_velocity_has_no_loss_and_makes_the_clip_in_any_number_of_steps() -> None:
    latents, noise, told = (torch.randn(2, c, 2, 4, 4) for c in (8, 8, 12))
    text, seen, sigma = torch.zeros(2, LENGTH, 128), torch.ones(2, 1, 2, 4, 4), torch.rand(2) * 0.9 + 0.1
    knows, level = Knows(latents, noise), sigma[:, None, None, None, None]
    now = level * noise + (1 - level) * latents
    *errors, made = clip_errors(knows, now, latents, told, text, seen, torch.ones(1), sigma)
    assert all(float(error.max()) < 1e-9 for error in errors)
    assert torch.allclose(made, latents, atol=1e-5)
    for steps in (1, 4):
        made = generate(knows, told[:, 4:], told[:, :4], text, noise, steps)
        assert torch.allclose(made, latents, atol=2e-3)


def test_errors_where_nothing_tells_what_is_there_are_kept_apart() -> None:
    latents, told, text = torch.zeros(1, 8, 2, 4, 4), torch.zeros(1, 12, 2, 4, 4), torch.zeros(1, LENGTH, 128)
    seen = torch.ones(1, 1, 2, 4, 4)
    seen[..., :2] = 0
    wrong = latents.clone()
    wrong[..., :2] = 3.0
    inside, outside, _ = clip_errors(
        Knows(latents, latents), wrong, latents, told, text, seen, torch.ones(1), torch.ones(1)
    )
    assert (float(inside), float(outside)) == (0.0, 4.5)


@pytest.mark.slow
@torch.no_grad()
def test_pixels_are_those_of_the_autoencoder_and_the_first_frame_is_left_out() -> None:
    vae = small_vae().eval()
    whole_clip.prepare(vae)
    latents, seen = torch.randn(1, 8, 3, 4, 4), torch.ones(1, 1, 3, 4, 4)
    frames = whole_clip.decode(vae, latents)
    frames[:, :, 0] += 1.0
    assert float(pixel_errors(vae, latents, frames, seen)[0]) < 1e-9
    frames[:, :, 1] += 1.0
    assert float(pixel_errors(vae, latents, frames, seen)[0]) == pytest.approx(1 / 8, abs=1e-4)


def test_half_the_error_is_worth_the_same_in_a_good_clip_and_in_a_bad_one() -> None:
    good, bad, nothing = torch.tensor([0.2]), torch.tensor([6.4]), torch.zeros(1)
    gained = [log_errors((e, nothing), 1e-6) - log_errors((e / 2, nothing), 1e-6) for e in (good, bad)]
    assert torch.allclose(gained[0], gained[1], atol=1e-4)


def test_it_learns_at_the_levels_that_the_steps_start_from_and_between() -> None:
    visited = torch.tensor(sigmas_of(STEPS)[:-1])
    sigmas = random_sigmas(4000, visited, torch.Generator().manual_seed(0))
    assert 0 <= float(sigmas.min()) < 0.2
    assert float(sigmas.max()) <= 1
    for level in visited:
        assert 0.12 < float(sigmas.eq(level).float().mean()) < 0.25


# --- stages ---


@pytest.mark.long
def test_prompts_drawn_by_other_processes_are_the_same() -> None:
    tokenizer = T5TokenizerFast.from_pretrained(MODEL / "tokenizer")
    budget = Budget(steps=2, batch=4, hidden_size=16, layers=1)
    alone, together = (train(tokenizer, budget, 3, workers=workers) for workers in (0, 1))
    for a, b in zip(alone.parameters(), together.parameters(), strict=True):
        assert torch.equal(a, b)


def test_no_prompt_is_cut_off_before_it_has_said_what_it_asks_for() -> None:
    tokenizer, rng = T5TokenizerFast.from_pretrained(MODEL / "tokenizer"), random.Random(5)
    for held_out in (False, True):
        said = [with_rate(random_prompt(rng, asked, held_out=held_out), 0.75) for asked in ALL_ASKED * 3]
        lengths = [len(ids) for ids in tokenizer(said).input_ids]
        assert sum(length > LENGTH for length in lengths) <= len(said) // 300


@pytest.mark.slow
def test_a_text_encoder_is_trained_on_gently_once_its_heads_can_read_it() -> None:
    tokenizer = T5TokenizerFast.from_pretrained(MODEL / "tokenizer")
    given = UMT5EncoderModel.from_pretrained(MODEL / "text_encoder", dtype=torch.float32)
    before = [w.detach().clone() for w in given.parameters()]
    budget = Budget(steps=20, batch=4)
    train(tokenizer, replace(budget, steps=1, peak_learning_rate=0.0), 3, given=given)
    assert all(torch.equal(a, b) for a, b in zip(before, given.parameters(), strict=True))
    train(tokenizer, budget, 3, given=given)
    after = [w.detach() for w in given.parameters()]
    moved = max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True))
    assert 0 < moved < 2 * budget.steps * budget.peak_learning_rate / 5


def vae_trainer(pictures: Atlas) -> VaeTrainer:
    stage = VaeStage(0.02, (Phase(0.5, Shape(1, 32, 32, 2)), Phase(2.0, Shape(5, 32, 32, 2))))
    return VaeTrainer(stage, pictures, [], rank=0, world=1, seed=0, device="cpu", fast=False, make=small_vae)


@pytest.mark.long
def test_a_stage_goes_on_where_it_stopped_here_and_elsewhere(pictures: Atlas, tmp_path: Path) -> None:
    trainer = vae_trainer(pictures)
    for _ in range(3):
        trainer.learn(Shape(5, 32, 32, 2))
    trainer.trained_s = 0.6
    again = vae_trainer(pictures)
    again.load_state(trainer.state())
    assert (again.step, again.done) == (3, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(again.weights, trainer.weights, strict=True))
    deliver(trainer.state(), tmp_path / "carry", "vae")
    elsewhere = vae_trainer(pictures)
    carried = collect(tmp_path / "carry", "vae")
    assert carried is not None
    elsewhere.load_state(carried)
    assert elsewhere.step == 3
    for a, b in zip(elsewhere.weights, trainer.average, strict=True):
        assert torch.allclose(a, b, atol=2e-3)


@pytest.mark.long
def test_learning_lowers_the_loss_of_the_autoencoder(pictures: Atlas) -> None:
    trainer = vae_trainer(pictures)
    losses = [float(trainer.learn(Shape(1, 32, 32, 8)).mean()) for _ in range(25)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.long
def test_a_stage_stops_at_a_loss_that_is_no_number(pictures: Atlas) -> None:
    trainer = vae_trainer(pictures)
    with torch.no_grad():
        trainer.weights[0].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="vae, step 1"):
        trainer.run(save=lambda _: None, log=None, stop_after_s=60)


@pytest.mark.long
def test_a_stage_ends_for_all_processes_when_one_has_no_time_left(
    pictures: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.tiny_wan.recipe.trainer.agreed", lambda value, *_: max(value, 0.1))
    trainer = vae_trainer(pictures)
    trainer.run(save=lambda _: None, log=None, stop_after_s=1e9)
    assert trainer.step == 0


def transformer_trainer(
    pictures: Atlas, shape: Shape, own_from_done: float, pixels_from_done: float = 1.0
) -> TransformerTrainer:
    vae = small_vae().eval().requires_grad_(False)
    whole_clip.prepare(vae)
    clips = ClipMaker(scenes_of(pictures), Prompts(MODEL, "cpu", each=1, seed=0), vae, seed=0)
    stage = TransformerStage(
        1.0, ((shape, 1.0),), own_from_done=own_from_done, pixels_from_done=pixels_from_done
    )
    no_tests: Any = None
    return TransformerTrainer(
        stage, clips, no_tests, rank=0, world=1, seed=0, fast=False, make=small_transformer
    )


@pytest.mark.slow
@pytest.mark.parametrize(("own_from_done", "pixels_from_done"), [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)])
def test_the_transformer_learns_from_clips_with_masks_and_prompts(
    pictures: Atlas, own_from_done: float, pixels_from_done: float
) -> None:
    shape = Shape(9, 32, 32, 3)
    trainer = transformer_trainer(pictures, shape, own_from_done, pixels_from_done)
    batch = trainer.clips.make(shape)
    assert batch.latents.shape == batch.condition.shape == (3, 8, 3, 4, 4)
    assert batch.mask.shape == (3, 4, 3, 4, 4)
    assert batch.text.shape == (3, LENGTH, 128)
    assert batch.seen.shape == (3, 1, 3, 4, 4)
    assert 0 <= float(batch.seen.min()) <= float(batch.seen.max()) <= 1
    assert batch.frames.shape == (3, 3, 9, 32, 32)
    losses = torch.cat([trainer.learn(shape) for _ in range(3)])
    assert losses.isfinite().all()
    assert trainer.step == len(losses)


@pytest.mark.slow
def test_a_clip_under_way_is_where_the_models_own_steps_lead(pictures: Atlas) -> None:
    shape = Shape(9, 32, 32, 4)
    trainer = transformer_trainer(pictures, shape, own_from_done=0.0)
    torch.nn.init.normal_(trainer.model.proj_out.weight, std=0.1)
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # it stays what it is
    trainer._noise = torch.ones_like  # type: ignore[method-assign]
    trainer.learn(shape)
    batch, now = trainer._under_way[shape]
    first = [values[:1] for values in (batch.condition, batch.mask, batch.text, torch.ones_like(now))]
    assert torch.allclose(now[:1], generate(trainer.model, *first, STEPS), atol=1e-4)
    assert not torch.allclose(now[:1], batch.latents[:1], atol=1e-1)


def test_a_finished_model_can_be_trained_on_from_its_own_folder(tmp_path: Path) -> None:
    work, model = tmp_path / "work", tmp_path / "model"
    vae = small_vae()
    save_part("vae", vae, work)
    torch.save(
        {"step": 7, "trained_s": 3.0, "weights": [], "average": [], "optimizers": []}, work / "vae_state.pt"
    )
    export(work, model, {"window_frames": 17})
    state = state_of("vae", tmp_path / "nothing", model, "cpu")
    assert state is not None
    assert (state["step"], state["trained_s"]) == (7, 3.0)
    for kept, weight in zip(state["weights"], vae.float().parameters(), strict=True):
        assert torch.allclose(kept, weight, atol=2e-3)


# --- the folder ---


def test_the_model_is_small_and_in_small_files() -> None:
    # Not what Python compiled of the recipe: the repository holds none of it.
    files = [path for path in MODEL.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    sizes = [path.stat().st_size for path in files]
    assert sum(sizes) <= 40 * 2**20
    assert max(sizes) <= 15 * 2**20


def test_the_tokenizer_is_read_as_a_t5_tokenizer_offline_and_keeps_the_rate() -> None:
    long = with_rate("a cat on a table, " * 40, 0.75)
    for read in (AutoTokenizer, T5TokenizerFast):
        tokenizer = read.from_pretrained(MODEL / "tokenizer")
        ids = tokenizer(long, truncation=True, max_length=LENGTH).input_ids
        assert len(ids) == LENGTH
        assert "0.75" in tokenizer.decode(ids[:12]).replace(" ", "")


@pytest.mark.slow
def test_the_folder_is_a_pipeline_that_makes_a_clip() -> None:
    pipeline = WanImageToVideoPipeline.from_pretrained(MODEL, dtype=torch.float32)
    channels = pipeline.vae.config.z_dim
    assert pipeline.transformer.config.in_channels == 2 * channels + 4
    pipeline.set_progress_bar_config(disable=True)
    text = torch.zeros(1, LENGTH, pipeline.transformer.config.text_dim)
    frames = pipeline(
        image=torch.rand(1, 3, 64, 64),
        height=64,
        width=64,
        num_frames=5,
        num_inference_steps=2,
        guidance_scale=1.0,
        prompt_embeds=text,
        output_type="pt",
    ).frames
    assert frames.shape == (1, 5, 3, 64, 64)
    assert frames.isfinite().all()


def test_every_question_is_asked_once() -> None:
    assert len(set(ALL_ASKED)) == len(ALL_ASKED)
    assert sum(share for _, share in KINDS.values()) == pytest.approx(1)
    for first, second in itertools.combinations(KINDS.values(), 2):
        assert not set(first[0]) & set(second[0])
