"""The networks of tiny_wan: the classes of Wan, small.

The autoencoder works on patches of 2x2 pixels, which quarters what its convolutions cost; a latent stands for
8x8 pixels of four frames, and the transformer takes 2x2 latents for a token.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel

#: Channels of a latent; pixels a side and frames it stands for.
LATENT_CHANNELS = 24
SPATIAL, TEMPORAL = 8, 4
PATCH = 2
TEXT_DIM = 128
#: Channels of one of the transformer's heads, and of its feed-forward layers for each channel of a token.
HEAD = 32
FEED_FORWARD = 21 / 8
#: Of the sigmas: sigma' = shift * sigma / (1 + (shift - 1) * sigma).
FLOW_SHIFT = 3.0
#: In so many steps, at most, the scheduler takes Euler's.
MOST_STEPS = 64


def new_vae(*, encoder_width: int = 32, decoder_width: int = 32, channels: int = LATENT_CHANNELS) -> Any:
    return AutoencoderKLWan(
        base_dim=encoder_width,
        decoder_base_dim=decoder_width,
        z_dim=channels,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[True, True],
        patch_size=PATCH,
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        is_residual=False,
        scale_factor_spatial=SPATIAL,
        scale_factor_temporal=TEMPORAL,
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )


def new_transformer(
    *, heads: int = 10, head: int = HEAD, layers: int = 8, channels: int = LATENT_CHANNELS
) -> Any:
    """Noisy latents, four mask channels (one a frame) and the condition's latents in; a velocity out."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=head,
        in_channels=2 * channels + TEMPORAL,
        out_channels=channels,
        text_dim=TEXT_DIM,
        freq_dim=256,
        ffn_dim=int(FEED_FORWARD * heads * head),
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=128,
    )


def new_scheduler() -> Any:
    """What Wan folders have, UniPC over a flow (Lipman et al. 2023); of first order and without correction it
    takes the Euler steps that the model was trained on.
    """
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=FLOW_SHIFT,
        num_train_timesteps=1000,
        solver_order=1,
        disable_corrector=list(range(MOST_STEPS)),
    )


def sigmas_of(steps: int) -> list[float]:
    """steps + 1 levels of noise, 1 to 0, as the scheduler sets them: 1, 0.9, 0.75, 0.5, 0 for four."""
    even = [1 - 0.999 * i / steps for i in range(steps)]
    return [FLOW_SHIFT * s / (1 + (FLOW_SHIFT - 1) * s) for s in even] + [0.0]


def write_pipeline_files(folder: Path, facts: dict[str, Any]) -> None:
    """The files of the pipeline folder beside the weights: index, scheduler, and what it was trained for."""
    new_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "WanImageToVideoPipeline",
        "boundary_ratio": None,
        "expand_timesteps": False,
        "image_encoder": [None, None],
        "image_processor": [None, None],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    lines = json.dumps(facts, indent=2)
    # A list takes one line.
    lines = re.sub(r"\[[^][]*]", lambda found: re.sub(r"\s+", " ", found[0]), lines)
    (folder / "farm.json").write_text(lines.replace("[ ", "[").replace(" ]", "]") + "\n")
