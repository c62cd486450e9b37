"""The parts of an I2VGen-XL model and the files of its folder."""

from __future__ import annotations

from pathlib import Path

from nodes.engines.folders import Layout, config_of
from nodes.engines.placement import Parts

PIPELINE = "I2VGenXLPipeline"
PARTS = Parts(denoisers=("unet",), vae="vae", encoders=("text_encoder", "image_encoder"))
#: Components with weights, and the stem of their weight files.
_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "image_encoder": "model",
}
LAYOUT = Layout(
    family="I2VGen-XL",
    weights=_WEIGHTS,
    data=(
        "model_index.json",
        "scheduler/scheduler_config.json",
        "feature_extractor/preprocessor_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        *(f"{component}/config.json" for component in _WEIGHTS),
    ),
)


def claims(path: Path) -> bool:
    """Whether ``path`` is a folder of this family: no other saves its pipeline under that name."""
    return config_of(path, "model_index.json").get("_class_name") == PIPELINE
