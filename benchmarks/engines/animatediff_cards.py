"""AnimateDiff with SparseCtrl at full size on capped cards, beside stock diffusers in the same run.

Folders with random weights, 4 and 1.3 GB, are written to ``--folder``. Every case runs in a process of its
own, capped to the bytes it names; a case that fails is written as such. Results are added to ``--out`` as
they come; what is there is not measured again unless ``--again``. At the end ratios to stock's guided step
and window are printed.

    python benchmarks/engines/animatediff_cards.py                                  # three minutes on an H100
    python benchmarks/engines/animatediff_cards.py --only 'square/*'                 # patterns of names
    python benchmarks/engines/animatediff_cards.py --tiny --out /tmp/rehearsal.json  # every path on a CPU
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

# The parent of all cases must not open the card: its children are forked.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nodes.engines.memory import use_expandable_segments  # noqa: E402

use_expandable_segments()

import torch  # noqa: E402
from diffusers import (  # noqa: E402
    AnimateDiffSparseControlNetPipeline,
    AutoencoderKL,
    MotionAdapter,
    SparseControlNetModel,
    UNet2DConditionModel,
)
from PIL import Image  # noqa: E402
from transformers import CLIPTextModel, CLIPTokenizer  # noqa: E402

from benchmarks.engines._farm_cases import picture  # noqa: E402
from benchmarks.engines._full_size import Window  # noqa: E402
from benchmarks.engines.unets._animatediff_folder import write_folder  # noqa: E402
from benchmarks.engines.unets._cases import (  # noqa: E402
    Cases,
    Family,
    card,
    measure,
    needs,
    ours,
    rungs,
    stock,
)
from nodes.engines.animatediff.engine import AnimateDiff  # noqa: E402
from nodes.engines.animatediff.facts import ModelFacts  # noqa: E402
from nodes.engines.animatediff.layout import DENOISER, PARTS  # noqa: E402
from nodes.engines.animatediff.loading import scheduler_of  # noqa: E402
from nodes.engines.animatediff.spec import animatediff_spec  # noqa: E402
from nodes.engines.folders import read_json, sources_of  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "animatediff_cards.json"
PROMPT = "a ship sails slowly to the right under a low sun"
#: Width, height, frames, steps.
SQUARE, TALL, SMALL = (512, 512, 16, 8), (512, 768, 16, 8), (256, 256, 16, 4)
#: Of several contexts.
LONG = (512, 512, 64, 4)


def pipeline(folder: Path, dtype: torch.dtype) -> Any:
    def read(kind: Any, name: str) -> Any:
        return kind.from_pretrained(folder / name, torch_dtype=dtype).eval()

    return AnimateDiffSparseControlNetPipeline(
        vae=read(AutoencoderKL, "vae"),
        text_encoder=read(CLIPTextModel, "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=read(UNet2DConditionModel, "unet"),
        motion_adapter=read(MotionAdapter, "motion_adapter"),
        controlnet=read(SparseControlNetModel, "controlnet"),
        scheduler=scheduler_of(read_json(folder, "scheduler/scheduler_config.json"), ModelFacts()),
    )


def arguments(window: Window) -> dict[str, Any]:
    """Of the stock pipeline, which decodes all frames at once."""
    width, height, num_frames, steps = window
    return {
        "prompt": PROMPT,
        "negative_prompt": "",
        "conditioning_frames": [Image.fromarray(picture(width, height))],
        "controlnet_frame_indices": [0],
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "num_inference_steps": steps,
        "guidance_scale": 7.5,
    }


FAMILY = Family(
    write_folder=write_folder,
    spec=animatediff_spec,
    engine=AnimateDiff,
    pipeline=pipeline,
    phases={
        "encode_prompt": ("encode", "encode"),
        "prepare_latents": ("prepare", "denoise"),
        "decode_latents": ("decode", "finish"),
    },
    arguments=arguments,
    guidance_scale=7.5,
    prompt=PROMPT,
    weights=lambda weights: {"weights": sources_of(weights, PARTS.denoisers, "animatediff")[DENOISER]},
)
CASES: Cases = {
    "card": (None, card),
    "square/stock": ("square", partial(stock, window=SQUARE, placed="resident")),
    "square/8gb": ("square", partial(ours, window=SQUARE, cap_gb=8)),
    "square/6gb": ("square", partial(ours, window=SQUARE, cap_gb=6)),
    "square/4gb": ("square", partial(ours, window=SQUARE, cap_gb=4)),
    "square/stock-model": ("square", partial(stock, window=SQUARE, placed="model")),
    "square/stock-leaf": ("square", partial(stock, window=SQUARE, placed="leaf")),
    "tall/stock": ("square", partial(stock, window=TALL, placed="resident")),
    "tall/6gb": ("square", partial(ours, window=TALL, cap_gb=6)),
    "tall/4gb": ("square", partial(ours, window=TALL, cap_gb=4)),
    "square/int8-4gb": ("square", partial(ours, window=SQUARE, cap_gb=4, format="int8")),
    "square/disk": ("square", partial(ours, window=SQUARE, cap_gb=4, rung="disk")),
    "square/words-4gb": ("square", partial(ours, window=SQUARE, cap_gb=4, given="nothing")),
    "look/6gb": ("look", partial(ours, window=SQUARE, cap_gb=6, given="reference")),
    "long/6gb": ("square", partial(ours, window=LONG, cap_gb=6, given="nothing")),
    "square/rungs": ("square", partial(rungs, window=SMALL)),
    "square/needs": (
        "square",
        partial(
            needs,
            settings=[
                ("resident", SQUARE),
                ("evict", TALL),
                ("cfg_split", SQUARE),
                ("stream", TALL),
                ("stream_cfg_split", SQUARE),
                ("evict", (768, 768, 16, 2)),
                ("stream", LONG),
                ("disk", SQUARE),
                ("resident", (256, 384, 16, 2)),
            ],
        ),
    ),
}


if __name__ == "__main__":
    measure(__doc__ or "", RESULT, FAMILY, CASES)
