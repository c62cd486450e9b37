"""Make tiny_i2v again: ``python -m models.tiny_i2v.recipe.train --work <folder>``, or that under torchrun.

Stages, in order; each leaves what the next one reads in the working folder:

    text   the tokenizer and the text encoder, on a CPU (recipe/text.py)
    vae    the autoencoder and the image encoder
    unet   the UNet on clips of 8 frames of 128x128
    tune   the UNet on other sizes, lengths and rates as well
    export the pipeline folder, in half precision

The UNet is saved every two minutes and goes on from there: from its whole state, or, on another machine, from
the half-precision files in ``<work>/carry``, with fresh optimizers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models.tiny_i2v.recipe.architecture import write_pipeline_files
from models.tiny_i2v.recipe.clips import Shape
from models.tiny_i2v.recipe.text import Budget
from models.tiny_i2v.recipe.text import make as make_text_encoder
from models.tiny_i2v.recipe.unet import Stage, UnetTrainer
from models.tiny_i2v.recipe.vae import train_vae

STAGES = ("text", "vae", "unet", "tune", "export")
#: No file of the model is larger.
SHARD_BYTES = 14 * 10**6
#: What the model was trained for; see nodes/engines/i2vgen_xl/spec.py.
FACTS = {
    "native_width": 128,
    "native_height": 128,
    "native_fps": 8,
    "window_frames": 8,
    "default_steps": 20,
    "default_guidance_scale": 1.5,
    "default_strength": 0.6,
    "min_fps": 1.0,
}


def main() -> None:
    args = _arguments()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    if world > 1:
        torch.cuda.set_device(rank)
        dist.init_process_group("nccl", device_id=torch.device(f"cuda:{rank}"))
    for stage in args.stages.split(","):
        if stage == "text" and rank == 0:
            make_text_encoder(args.work, Budget(), args.seed)
        elif stage == "vae":
            train_vae(
                args.work,
                minutes=args.vae_minutes,
                seed=args.seed,
                device=_device(rank),
                batch=args.vae_batch,
                pictures=args.pictures,
                fast=not args.eager,
                rank=rank,
                world=world,
            )
        elif stage in ("unet", "tune"):
            _train_unet(args, stage, rank, world)
        elif stage == "export" and rank == 0:
            export(args.work, args.out)
        if world > 1:
            dist.barrier()
    if world > 1:
        dist.destroy_process_group()


def _device(rank: int) -> str:
    return f"cuda:{rank}" if torch.cuda.is_available() else "cpu"


def _arguments() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and finished parts")
    parser.add_argument("--out", type=Path, default=Path("models/tiny_i2v"), help="where export writes")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=2048, help="of the atlas on each GPU")
    parser.add_argument("--vae-minutes", type=float, default=5)
    parser.add_argument("--vae-batch", type=int, default=192)
    parser.add_argument("--unet-minutes", type=float, default=10)
    parser.add_argument("--tune-minutes", type=float, default=6)
    parser.add_argument("--batch", type=int, default=256, help="clips of 8 frames of 128x128 on each GPU")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--decay", type=float, default=0.0001, help="share of the unet stage at a falling rate"
    )
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="muon")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--deliver", type=Path, help="copy half-precision checkpoints there")
    return parser.parse_args()


def _train_unet(args: Any, name: str, rank: int, world: int) -> None:
    batch = args.batch
    plain = Shape(8, 128, batch)
    if name == "unet":
        shapes: tuple[tuple[Shape, float], ...] = ((plain, 1.0),)
        stage = Stage(args.unet_minutes, shapes, args.learning_rate, args.decay, warmup_steps=100)
    else:
        shapes = (
            (plain, 0.55),
            (Shape(16, 128, batch * 3 // 8), 0.2),
            (Shape(8, 192, batch * 5 // 16), 0.1),
            (Shape(8, 256, batch * 3 // 16), 0.15),
        )
        stage = Stage(args.tune_minutes, shapes, args.learning_rate, decay=1.0, warmup_steps=20)
    trainer = UnetTrainer(
        args.work,
        stage,
        rank=rank,
        world=world,
        seed=args.seed,
        pictures=args.pictures,
        fast=not args.eager,
        optimizer=args.optimizer,
    )
    whole, carry = args.work / "unet_state.pt", args.work / "carry"
    if whole.exists():
        trainer.load_state(torch.load(whole, map_location=trainer.device))
    elif carry.is_dir():
        trainer.load_state(collect(carry))
    if rank == 0:
        print(
            f"{name}: from step {trainer.step}, {sum(w.numel() for w in trainer.weights) / 1e6:.1f} M",
            flush=True,
        )

    def save(trainer: UnetTrainer) -> None:
        torch.save(trainer.state(), whole.with_suffix(".new"))
        os.replace(whole.with_suffix(".new"), whole)
        if args.deliver:
            deliver(trainer.state(), args.deliver)

    trainer.run(save=save)
    if rank == 0:
        save(trainer)
        trainer.averaged().half().save_pretrained(args.work / "unet", max_shard_size=SHARD_BYTES)


def deliver(state: dict[str, Any], folder: Path) -> None:
    """The averaged weights in half precision, in two files, with the step."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = [w.half().cpu().contiguous() for w in state["average"]]
    sizes = [w.numel() for w in halves]
    middle = sum(2 * reached <= sum(sizes) for reached in accumulate(sizes))
    for part, chosen in (("0", range(middle)), ("1", range(middle, len(halves)))):
        tensors = {str(i): halves[i] for i in chosen}
        save_file(tensors, folder / f"average-{part}.new", {"step": str(state["step"])})
        os.replace(folder / f"average-{part}.new", folder / f"average-{part}.safetensors")


def collect(folder: Path) -> dict[str, Any]:
    """What ``deliver`` wrote, as a state to go on from: the weights are the averaged ones."""
    tensors = {k: w for part in "01" for k, w in load_file(folder / f"average-{part}.safetensors").items()}
    average = [tensors[str(i)] for i in range(len(tensors))]
    with safe_open(folder / "average-0.safetensors", "pt") as file:
        return {"step": int(file.metadata()["step"]), "weights": average, "average": average}


def export(work: Path, out: Path) -> None:
    """Put the parts together as an ordinary pipeline folder."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("unet", "vae", "text_encoder", "image_encoder", "tokenizer"):
        if (work / name).resolve() != (out / name).resolve():
            shutil.rmtree(out / name, ignore_errors=True)
            shutil.copytree(work / name, out / name)
    write_pipeline_files(out)
    (out / "farm.json").write_text(json.dumps(FACTS, indent=2) + "\n")


if __name__ == "__main__":
    main()
