"""The networks of tiny_i2v: the classes of I2VGen-XL, small.

Only the two deep levels attend: on a CPU attention over small heads costs more than the convolutions, and
what has to be carried across the frame is carried at the coarse levels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLUNet
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

CONTEXT_DIM = 128
#: Pixels a side of what the image encoder sees.
VISION_SIDE = 64
VISION_MEAN = (0.48145466, 0.4578275, 0.40821073)
VISION_STD = (0.26862954, 0.26130258, 0.27577711)


def new_unet() -> Any:
    return I2VGenXLUNet(
        sample_size=32,
        block_out_channels=(32, 96, 128, 128),
        down_block_types=("DownBlock3D", "DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D", "UpBlock3D"),
        layers_per_block=1,
        cross_attention_dim=CONTEXT_DIM,
        attention_head_dim=8,
    )


def new_vae() -> Any:
    return AutoencoderKL(
        block_out_channels=(32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        mid_block_add_attention=False,
        sample_size=128,
    )


def new_image_encoder() -> Any:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=VISION_SIDE,
            patch_size=16,
            projection_dim=CONTEXT_DIM,
        )
    )


def new_scheduler() -> Any:
    """DDIM over v-prediction whose last timestep is pure noise (Lin et al. 2024, arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def write_pipeline_files(folder: Path) -> None:
    """The files of the pipeline folder beside the weights: index, scheduler, image processor."""
    new_scheduler().save_pretrained(folder / "scheduler")
    side = {"height": VISION_SIDE, "width": VISION_SIDE}
    processor = {
        "crop_size": side,
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(VISION_MEAN),
        "image_std": list(VISION_STD),
        "image_processor_type": "CLIPImageProcessor",
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": VISION_SIDE},
    }
    (folder / "feature_extractor").mkdir(exist_ok=True)
    path = folder / "feature_extractor" / "preprocessor_config.json"
    path.write_text(json.dumps(processor, indent=2) + "\n")
    write_model_index(folder)


def write_model_index(folder: Path) -> None:
    """Name the classes of the parts, as every I2VGen-XL folder does."""
    index = {
        "_class_name": "I2VGenXLPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "I2VGenXLUNet"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
