"""Stable Video Diffusion at full size on capped cards, beside stock diffusers in the same run.

Folders of SVD (14 frames) and SVD-XT (25) with random weights, 8 GB in all, are written to ``--folder``.
Every case runs in a process of its own, capped to the bytes it names; a case that fails is written as such.
Results are added to ``--out`` as they come; what is there is not measured again unless ``--again``. At the
end ratios to stock's guided step and whole window are printed.

    python benchmarks/engines/svd_cards.py                                     # three minutes on an H100
    python benchmarks/engines/svd_cards.py --only 'xt/*' --folder /dev/shm/svd  # patterns of names
    python benchmarks/engines/svd_cards.py --tiny --out /tmp/rehearsal.json    # every path on a CPU
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

from diffusers import StableVideoDiffusionPipeline  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.engines._farm_cases import picture  # noqa: E402
from benchmarks.engines._full_size import Window  # noqa: E402
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
from benchmarks.engines.unets._svd_folder import write_folder  # noqa: E402
from nodes.engines.svd.engine import StableVideoDiffusion  # noqa: E402
from nodes.engines.svd.spec import svd_spec  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "svd_cards.json"
#: Width, height, frames, steps: as trained, of the article's pieces, small.
XT, SVD, EIGHT, SMALL = (1024, 576, 25, 6), (1024, 576, 14, 6), (1024, 576, 8, 6), (512, 320, 14, 4)


def arguments(window: Window) -> dict[str, Any]:
    """Of the stock pipeline; frames are decoded one by one."""
    width, height, num_frames, steps = window
    return {
        "image": Image.fromarray(picture(width, height)),
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "num_inference_steps": steps,
        "decode_chunk_size": 1,
    }


FAMILY = Family(
    write_folder=write_folder,
    spec=svd_spec,
    engine=StableVideoDiffusion,
    pipeline=lambda folder, dtype: StableVideoDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype),
    phases={
        "_encode_image": ("encode", "encode"),
        "prepare_latents": ("prepare", "denoise"),
        "decode_latents": ("decode", "finish"),
    },
    arguments=arguments,
    guidance_scale=3.0,
)
CASES: Cases = {
    "card": (None, card),
    "xt/stock": ("xt", partial(stock, window=XT, placed="resident")),
    "xt/8gb": ("xt", partial(ours, window=XT, cap_gb=8)),
    "xt/6gb": ("xt", partial(ours, window=XT, cap_gb=6)),
    "xt/6gb-two-passes": ("xt", partial(ours, window=XT, cap_gb=6, rung="cfg_split")),
    "xt/4gb": ("xt", partial(ours, window=XT, cap_gb=4)),
    "xt/disk": ("xt", partial(ours, window=XT, cap_gb=4, rung="disk")),
    "xt/3gb": ("xt", partial(ours, window=XT, cap_gb=3)),
    "xt/stock-model": ("xt", partial(stock, window=XT, placed="model")),
    "xt/stock-leaf": ("xt", partial(stock, window=XT, placed="leaf")),
    "svd/stock": ("svd", partial(stock, window=SVD, placed="resident")),
    "svd/6gb": ("svd", partial(ours, window=SVD, cap_gb=6)),
    "svd/4gb": ("svd", partial(ours, window=SVD, cap_gb=4)),
    "svd/eight-6gb": ("svd", partial(ours, window=EIGHT, cap_gb=6)),
    "svd/rungs": ("svd", partial(rungs, window=SMALL)),
    "xt/needs": (
        "xt",
        partial(
            needs,
            settings=[
                ("evict", XT),
                ("cfg_split", XT),
                ("stream", XT),
                ("resident", SVD),
                ("evict", EIGHT),
                ("stream_cfg_split", (768, 448, 25, 2)),
                ("stream", (576, 1024, 14, 2)),
                ("evict", (512, 320, 25, 2)),
                ("disk", SVD),
            ],
        ),
    ),
}


if __name__ == "__main__":
    measure(__doc__ or "", RESULT, FAMILY, CASES)
