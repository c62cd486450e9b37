"""The parts of a Stable Video Diffusion model and the files of its folder."""

from __future__ import annotations

from pathlib import Path

from nodes.engines.folders import Layout, config_of
from nodes.engines.placement import Parts

PIPELINE = "StableVideoDiffusionPipeline"
UNET, VAE, IMAGE_ENCODER = "unet", "vae", "image_encoder"
#: The halves of the VAE, of which a window needs one before its steps and one after.
VAE_ENCODER, VAE_DECODER = "vae_encoder", "vae_decoder"
PARTS = Parts(denoisers=(UNET,), vae=VAE_DECODER, encoders=(IMAGE_ENCODER, VAE_ENCODER))
#: Folders with weights, and the stem of their weight files.
_WEIGHTS = {UNET: "diffusion_pytorch_model", VAE: "diffusion_pytorch_model", IMAGE_ENCODER: "model"}
LAYOUT = Layout(
    family="Stable Video Diffusion",
    weights=_WEIGHTS,
    data=(
        "model_index.json",
        "scheduler/scheduler_config.json",
        "feature_extractor/preprocessor_config.json",
        *(f"{component}/config.json" for component in _WEIGHTS),
    ),
)


def claims(path: Path) -> bool:
    """Whether ``path`` is a folder of this family: no other saves its pipeline under that name."""
    return config_of(path, "model_index.json").get("_class_name") == PIPELINE
