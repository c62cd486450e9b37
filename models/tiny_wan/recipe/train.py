"""Make tiny_wan again: ``python -m models.tiny_wan.recipe.train --work <folder>``, or that under torchrun.

Stages, in order; each leaves what the next one reads in the working folder:

    text         the tokenizer and the text encoder; other processes draw its prompts
    vae          the autoencoder: pictures, then clips
    transformer  the transformer on latents of clips: one shape, then many
    export       the pipeline folder, in half precision

and, named only, before the last:

    texture      the transformer against a discriminator, to paint what nobody can know: an experiment

The long stages save as they go and go on from there: from their whole state; or, on another machine, from
the half-precision files of ``--deliver`` laid into ``<work>/carry``; or else from the model's own folder
``--out``, the last two with fresh optimizers. Their minutes are of training in all, with what was before.
``--seconds`` ends a run early; the same command goes on. To begin from nothing, give another ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.architecture import new_transformer, new_vae
from models.tiny_wan.recipe.asked import RATE_TEMPLATE, RATES, VOCABULARY
from models.tiny_wan.recipe.checkpoint import deliver, deliver_module, save_whole
from models.tiny_wan.recipe.clips import ClipMaker, Prompts
from models.tiny_wan.recipe.data.pictures import Atlas, atlas
from models.tiny_wan.recipe.measure import autoencoder_figures, held_out_clips, write_sheet
from models.tiny_wan.recipe.parts import export, finished, save_part, state_of, text_folder
from models.tiny_wan.recipe.prompts import random_prompt
from models.tiny_wan.recipe.scenes import Scenes, Shape
from models.tiny_wan.recipe.text import LENGTH, Budget
from models.tiny_wan.recipe.text import make as make_text_encoder
from models.tiny_wan.recipe.texture.stage import TextureStage, TextureTrainer
from models.tiny_wan.recipe.texture.watched import Watched
from models.tiny_wan.recipe.texture.worn import WornClipMaker
from models.tiny_wan.recipe.transformer import STEPS, HeldOutTests, TransformerStage, TransformerTrainer
from models.tiny_wan.recipe.vae import Phase, VaeStage, VaeTrainer, latent_statistics

Maker = TypeVar("Maker", bound=ClipMaker)
STAGES = ("text", "vae", "transformer", "export")
#: What the model was trained for.
FACTS = {
    "native_width": 256,
    "native_height": 256,
    "native_fps": 8,
    "window_frames": 17,
    "windows": [9, 17, 33],
    "default_steps": STEPS,
    # One of its own steps shows as much as four; two or three are at levels of noise it has not seen.
    "preview_steps": 1,
    "default_guidance_scale": 1.0,
    "max_sequence_length": LENGTH,
    "prompt_template": RATE_TEMPLATE,
    "told_fps": list(RATES),
    "min_fps": RATES[0],
    "side_multiple": 16,
    "trained_sides": [128, 384],
    "known_frames": ["first", "first_and_last", "last", "first_k", "both_ends_k", "middle"],
    # It learns from its own steps at last, and makes of a noised video what its words say, not what is in it.
    "untrained": ["video"],
    "vocabulary": VOCABULARY,
}


def main() -> None:
    began = time.monotonic()
    args = _arguments()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = not args.eager
    if world > 1:
        torch.cuda.set_device(_device())
        dist.init_process_group("nccl", device_id=torch.device(_device()))
    for stage in args.stages.split(","):
        left = args.seconds - (time.monotonic() - began)
        if stage == "text" and rank == 0:
            workers = 0 if args.small else min(16, (os.cpu_count() or 1) // 2)
            budget = Budget(steps=args.text_steps)
            given = args.text_from
            make_text_encoder(args.work, budget, args.seed, device=_device(), workers=workers, given=given)
        elif stage == "vae":
            train_vae(args, rank, world, left)
        elif stage == "transformer":
            train_transformer(args, rank, world, left)
        elif stage == "texture":
            train_texture(args, rank, world, left)
        elif stage == "export" and rank == 0:
            print(json.dumps(export(args.work, args.out, FACTS)), flush=True)
        if world > 1:
            dist.barrier()
    if world > 1:
        dist.destroy_process_group()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and finished parts")
    parser.add_argument("--out", type=Path, help="the model, models/tiny_wan: where export writes")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="end this run after so many, saved")
    parser.add_argument("--pictures", type=int, default=4096, help="of the atlas on each GPU")
    parser.add_argument("--text-steps", type=int, default=Budget.steps)
    parser.add_argument("--text-from", type=Path, help="train the text encoder of this model on")
    parser.add_argument("--vae-minutes", type=float, default=7)
    parser.add_argument("--transformer-minutes", type=float, default=30)
    parser.add_argument("--texture-minutes", type=float, default=25)
    parser.add_argument("--texture-rate", type=float, default=TextureStage.muon_rate, help="Muon's")
    parser.add_argument("--texture-batch", type=int, default=32, help="as --batch, of the stage texture")
    parser.add_argument(
        "--say", type=float, default=TextureStage.say, help="of the discriminator, beside what is held"
    )
    parser.add_argument(
        "--vae-batch", type=int, default=48, help="as many pixels as in clips of 17 x 128 x 128"
    )
    parser.add_argument("--batch", type=int, default=192, help="clips of 17 frames of 128x128 on each GPU")
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--small", action="store_true", help="a rehearsal: tiny shapes")
    parser.add_argument("--first-phase-only", action="store_true", help="of the vae: pictures alone")
    parser.add_argument(
        "--deliver", type=Path, help="copy half-precision checkpoints, figures and sheets there"
    )
    parser.add_argument("--report-every", type=float, default=60, help="seconds")
    args = parser.parse_args()
    args.out = args.out or (args.work / "model" if args.small else Path("models/tiny_wan"))
    return args


def _device() -> str:
    """This process's; where each sees but one, all call it by one name and share compiled code."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"


def _atlas(args: Any, rank: int) -> Atlas:
    """This process's pictures, drawn once for a working folder."""
    path = args.work / f"pictures-{args.pictures}-{rank}.pt"
    if path.exists():
        return Atlas(torch.load(path, map_location=_device()))
    made = atlas(args.pictures, 384, args.seed + 1000 * rank + 1, _device(), photograph_share=0.55)
    torch.save(made.large, path)
    return made


def _new_vae(args: Any) -> Any:
    return new_vae(encoder_width=4, decoder_width=4, channels=8) if args.small else new_vae()


def _new_transformer(args: Any) -> Any:
    return new_transformer(heads=1, layers=2, channels=8) if args.small else new_transformer()


def vae_stage(args: Any) -> VaeStage:
    """Pictures, then clips; tiny ones in a rehearsal."""
    batch = args.vae_batch
    if args.small:
        shapes = Shape(1, 32, 32, 2), Shape(5, 32, 32, 2)
    else:
        shapes = Shape(1, 128, 128, 8 * batch), Shape(17, 192, 192, batch * 5 // 12)
    untils = (2.0,) if args.first_phase_only else (0.16, 2.0)
    phases = tuple(Phase(until, shape) for until, shape in zip(untils, shapes, strict=False))
    return VaeStage(args.vae_minutes, phases, muon_rate=args.muon_rate, rate=args.rate)


def train_vae(args: Any, rank: int, world: int, seconds: float) -> None:
    """Train, save and deliver; in the end ``<work>/vae`` is the finished autoencoder."""
    began = time.monotonic()
    pictures, stage = _atlas(args, rank), vae_stage(args)
    tests = held_out_clips(side=32, num_frames=5, each=1) if args.small else held_out_clips()
    trainer = VaeTrainer(
        stage,
        pictures,
        tests,
        rank=rank,
        world=world,
        seed=args.seed,
        device=_device(),
        fast=not args.eager,
        make=lambda: _new_vae(args),
    )
    if given := state_of("vae", args.work, args.out, _device()):
        trainer.load_state(given)
    if rank == 0:
        print(
            f"vae: from step {trainer.step}, {sum(w.numel() for w in trainer.weights) / 1e6:.2f} M",
            flush=True,
        )

    def save(trainer: VaeTrainer) -> None:
        save_whole(trainer.state(), args.work / "vae_state.pt")
        if args.deliver:
            deliver({**trainer.state(), "stage_minutes": stage.minutes}, args.deliver, "vae")

    left = seconds - (time.monotonic() - began) - 12
    trainer.run(save=save, log=_log(args), stop_after_s=left, every_s=args.report_every)
    if rank > 0:
        return
    print(f"vae: {trainer.done:.0%} of the stage, {time.monotonic() - began:.0f} s", flush=True)
    with torch.no_grad():
        for weight, mean in zip(trainer.weights, trainer.average, strict=True):
            weight.copy_(mean)
    scenes = Scenes(pictures, torch.Generator(_device()).manual_seed(args.seed + 9))
    mean, std = latent_statistics(
        trainer.model, scenes, stage.phases[-1].shape, batches=2 if args.small else 12
    )
    made = _new_vae(args)
    made.register_to_config(latents_mean=mean, latents_std=std)
    made.load_state_dict({k: v.contiguous().cpu() for k, v in trainer.model.state_dict().items()})
    save_part("vae", made, args.work)
    if args.deliver:
        deliver({**trainer.state(), "latents_mean": mean, "latents_std": std}, args.deliver, "vae")
        _, rebuilt = autoencoder_figures(trainer.model, tests)
        write_sheet(args.deliver / "vae_sheet.jpg", [c.frames for c in tests[::4]], list(rebuilt[::4]))


def _log(args: Any) -> Path | None:
    """The figures of all runs so far; delivered, where there is a folder for that."""
    folder = args.deliver or args.work
    folder.mkdir(parents=True, exist_ok=True)
    kept, path = args.work / "carry" / "figures.jsonl", folder / "figures.jsonl"
    if kept.exists() and not path.exists():
        shutil.copy(kept, path)
    return Path(path)


def transformer_stage(args: Any) -> TransformerStage:
    """Clips of 17 frames of 256x256; later windows of 9 and 33 frames too, and sides of 128 to 384."""
    if args.small:
        return TransformerStage(
            args.transformer_minutes, ((Shape(9, 32, 32, 2), 1.0), (Shape(5, 48, 32, 2), 1.0)), 0.5
        )
    batch = args.batch
    shapes = (
        (Shape(17, 256, 256, batch // 4), 0.66),
        (Shape(17, 192, 320, batch // 4), 0.12),
        (Shape(17, 128, 128, batch), 0.06),
        (Shape(33, 192, 192, batch // 4), 0.06),
        (Shape(9, 192, 192, batch * 3 // 4), 0.05),
        (Shape(17, 256, 384, batch // 6), 0.05),
    )
    return TransformerStage(args.transformer_minutes, shapes, muon_rate=args.muon_rate, rate=args.rate / 2)


def _clip_maker(args: Any, rank: int, kind: type[Maker], compiled: Shape | None, wordings: int = 40) -> Maker:
    """What makes this process's clips, with the finished autoencoder and text encoder."""
    device = _device()
    vae = finished("vae", args.work, args.out).to(device).eval().requires_grad_(False)
    if device != "cpu":
        vae = whole_clip.channels_last(vae)
    whole_clip.prepare(vae)
    prompts = Prompts(
        text_folder(args.work, args.out), device, each=2 if args.small else wordings, seed=args.seed + rank
    )
    scenes = Scenes(_atlas(args, rank), torch.Generator(device).manual_seed(args.seed + 101 * rank + 5))
    return kind(scenes, prompts, vae, compiled=compiled, seed=args.seed + rank)


def _held_out_tests(args: Any, maker: ClipMaker) -> HeldOutTests:
    from transformers import AutoTokenizer

    clips = held_out_clips(side=32, num_frames=9, each=1) if args.small else held_out_clips()
    words = random.Random(14)
    said = [random_prompt(words, clip.asked, held_out=True) for clip in clips]
    tokenizer = AutoTokenizer.from_pretrained(text_folder(args.work, args.out) / "tokenizer")
    return HeldOutTests(clips, maker, tokenizer, said)


def train_transformer(args: Any, rank: int, world: int, seconds: float) -> None:
    """Train, save and deliver; ``<work>/transformer`` is the averaged one so far."""
    began = time.monotonic()
    device, stage = _device(), transformer_stage(args)
    maker = _clip_maker(args, rank, ClipMaker, None if args.eager else stage.shapes[0][0])
    tests = _held_out_tests(args, maker)
    trainer = TransformerTrainer(
        stage,
        maker,
        tests,
        rank=rank,
        world=world,
        seed=args.seed,
        fast=not args.eager,
        make=lambda: _new_transformer(args),
    )
    if given := state_of("transformer", args.work, args.out, device):
        trainer.load_state(given)
    if rank == 0:
        print(
            f"transformer: from step {trainer.step}, {sum(w.numel() for w in trainer.weights) / 1e6:.2f} M",
            flush=True,
        )

    def save(trainer: TransformerTrainer) -> None:
        save_whole(trainer.state(), args.work / "transformer_state.pt")
        if args.deliver:
            deliver({**trainer.state(), "stage_minutes": stage.minutes}, args.deliver, "transformer")

    left = seconds - (time.monotonic() - began) - 15
    trainer.run(save=save, log=_log(args), stop_after_s=left, every_s=args.report_every)
    if rank == 0:
        _finish(args, trainer)


def _finish(args: Any, trainer: TransformerTrainer) -> None:
    """The averaged transformer so far, and a sheet of what it makes."""
    with trainer.averaged():
        part = _new_transformer(args)
        part.load_state_dict({k: v.cpu() for k, v in trainer.model.state_dict().items()})
        save_part("transformer", part, args.work)
        if args.deliver:
            made = trainer.tests.made(trainer.model, "first")
            write_sheet(
                args.deliver / "sheet.jpg", [c.frames for c in trainer.tests.clips[::2]], list(made[::2])
            )


def texture_stage(args: Any) -> TextureStage:
    """Half of the steps in windows and drafts of 128x128, where the least is known, half in larger frames."""
    if args.small:
        shapes: tuple[tuple[Shape, float], ...] = ((Shape(9, 32, 32, 4), 0.5), (Shape(5, 48, 32, 4), 0.5))
    else:
        batch = args.texture_batch
        shapes = (
            (Shape(17, 128, 128, batch), 0.25),
            (Shape(9, 128, 128, 2 * batch), 0.25),
            (Shape(17, 256, 256, batch // 4), 0.3),
            (Shape(17, 192, 320, batch // 4), 0.2),
        )
    return TextureStage(args.texture_minutes, shapes, say=args.say, muon_rate=args.texture_rate)


def train_texture(args: Any, rank: int, world: int, seconds: float) -> None:
    """As ``train_transformer``, of the stage after it."""
    began = time.monotonic()
    device, stage = _device(), texture_stage(args)
    maker = _clip_maker(args, rank, WornClipMaker, None, wordings=12)
    tests = _held_out_tests(args, maker)
    watched = Watched(maker, tests.tokenizer, side=32 if args.small else 128, each=1 if args.small else 2)
    trainer = TextureTrainer(
        stage,
        maker,
        tests,
        watched,
        rank=rank,
        world=world,
        seed=args.seed,
        make=lambda: _new_transformer(args),
    )
    if given := state_of("texture", args.work, args.out, device):
        trainer.load_state(given)
    if rank == 0:
        print(f"texture: from step {trainer.step}, judged {trainer.judged} times", flush=True)

    def save(trainer: TextureTrainer) -> None:
        save_whole(trainer.state(), args.work / "texture_state.pt")
        if args.deliver:
            deliver({**trainer.state(), "stage_minutes": stage.minutes}, args.deliver, "texture")
            deliver_module(trainer.discriminator, args.deliver, "discriminator")

    left = seconds - (time.monotonic() - began) - 20
    trainer.run(save=save, log=_log(args), stop_after_s=left, every_s=args.report_every)
    if rank == 0:
        _finish(args, trainer)
        if args.deliver:
            with trainer.averaged():
                watched.sheet(trainer.model, args.deliver / "watched.jpg")


if __name__ == "__main__":
    main()
