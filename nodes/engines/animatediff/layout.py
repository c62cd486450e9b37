"""What a folder of AnimateDiff holds: Stable Diffusion 1.5 with a motion adapter, and perhaps a SparseCtrl.

As diffusers saves its AnimateDiff pipelines, whose U-Net has the motion modules within; or a folder of Stable
Diffusion 1.5 into which the adapter's folder was put as ``motion_adapter``, the SparseCtrl's as
``controlnet``, and an IP-Adapter's file as ``ip_adapter/...safetensors`` beside the ``image_encoder`` it was
made for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.errors import CannotRun
from nodes.engines.folders import Kept, Layout, check_folder, config_of, read_json
from nodes.engines.placement import Parts

PIPELINES = (
    "AnimateDiffPipeline",
    "AnimateDiffSparseControlNetPipeline",
    "AnimateDiffVideoToVideoPipeline",
)
_STABLE_DIFFUSION = "StableDiffusionPipeline"
UNET, ADAPTER, CONTROL, VAE, TEXT_ENCODER = "unet", "motion_adapter", "controlnet", "vae", "text_encoder"
#: The folder with an IP-Adapter's file, and what its pictures are seen by.
LOOK, IMAGE_ENCODER = "ip_adapter", "image_encoder"
#: What an IP-Adapter's tensors begin with: those within the U-Net's attention, those behind the encoder.
IN_ATTENTION, BEHIND_ENCODER = "ip_adapter.", "image_proj."
#: Of the U-Net's tensors in a file that holds a whole model, as Stable Diffusion's authors name them.
CHECKPOINT_PREFIX = "model.diffusion_model."
#: The U-Net with its motion modules and the SparseCtrl before it.
DENOISER = "denoiser"
PARTS = Parts(denoisers=(DENOISER,), vae=VAE, encoders=(TEXT_ENCODER,))
#: What of the denoiser stays out of formats in fewer bits, beside its convolutions.
KEPT = Kept(plain=("norm",))
_STEM = "diffusion_pytorch_model"


@dataclass(frozen=True)
class AnimateDiffFolder:
    """What the configs of a folder say."""

    path: Path
    unet: dict[str, Any]
    #: None: the U-Net has the motion modules within.
    adapter: dict[str, Any] | None
    #: None: no frames can be given.
    control: dict[str, Any] | None
    #: The file of an IP-Adapter; None: no references can be given.
    look: Path | None
    vae: dict[str, Any]
    scheduler: dict[str, Any]

    def weights(self) -> dict[str, str]:
        """The folders with weights that are read, and the stem of their weight files."""
        here = {ADAPTER: self.adapter, CONTROL: self.control}
        names = (UNET, *(name for name, config in here.items() if config is not None), VAE)
        seen = {} if self.look is None else {IMAGE_ENCODER: "model"}
        return {**dict.fromkeys(names, _STEM), TEXT_ENCODER: "model", **seen}

    @property
    def pixels_per_latent(self) -> int:
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))


def claims(path: Path) -> bool:
    """Whether ``path`` is a folder of this family: of a pipeline, or of pictures that want an adapter."""
    return config_of(path, "model_index.json").get("_class_name") in (*PIPELINES, _STABLE_DIFFUSION)


def read_folder(path: Path, *, has_unet: bool = True) -> AnimateDiffFolder:
    """What the configs of a folder say.

    Args:
        path: The folder.
        has_unet: Its U-Net has weights; else they come from a file.

    Raises:
        CannotRun: a file is missing or cannot be read, or the folder is of a model that this engine does not
            run.
    """
    is_merged = config_of(path, f"{UNET}/config.json").get("_class_name") == "UNetMotionModel"
    if not is_merged and not (path / ADAPTER / "config.json").is_file():
        raise CannotRun(
            f"{path} makes pictures, which motion modules move: put the folder of a motion adapter for "
            f"Stable Diffusion 1.5 into it, as {ADAPTER}"
        )
    has_control = (path / CONTROL / "config.json").is_file()
    parts = (UNET, *(() if is_merged else (ADAPTER,)), *((CONTROL,) if has_control else ()), VAE)
    look = _look(path)
    files = _layout((*parts, TEXT_ENCODER, *(() if look is None else (IMAGE_ENCODER,))))
    check_folder(path, files if has_unet else files.without((UNET,)))
    configs = {name: read_json(path, f"{name}/config.json") for name in parts}
    for name, known in (
        (UNET, ("UNetMotionModel", "UNet2DConditionModel")),
        (ADAPTER, ("MotionAdapter",)),
        (CONTROL, ("SparseControlNetModel",)),
    ):
        if name in configs and configs[name].get("_class_name") not in known:
            raise CannotRun(
                f"{path / name} is {configs[name].get('_class_name')}, expected {' or '.join(known)}"
            )
    control = configs.get(CONTROL)
    if control is not None and not control.get("use_simplified_condition_embedding", True):
        raise CannotRun(
            f"{path / CONTROL} is a SparseCtrl for scribbles, and frames are given as pictures: put the one "
            "for rgb there"
        )
    if configs[UNET].get("addition_embed_type") is not None:
        raise CannotRun(f"{path / UNET} is of Stable Diffusion XL, and this engine runs 1.5")
    return AnimateDiffFolder(
        path=path,
        unet=configs[UNET],
        adapter=configs.get(ADAPTER),
        control=control,
        look=look,
        vae=configs[VAE],
        scheduler=read_json(path, "scheduler/scheduler_config.json"),
    )


def _look(path: Path) -> Path | None:
    """The file of an IP-Adapter that a folder has.

    Raises:
        CannotRun: it has several.
    """
    files = sorted((path / LOOK).glob("*.safetensors"))
    if len(files) > 1:
        raise CannotRun(
            f"{path / LOOK} holds {len(files)} files ({files[0].name}, {files[1].name}, ...): leave one "
            "IP-Adapter there"
        )
    return files[0] if files else None


def _layout(weights: Iterable[str]) -> Layout:
    stems = {name: "model" if name in (TEXT_ENCODER, IMAGE_ENCODER) else _STEM for name in weights}
    return Layout(
        family="AnimateDiff",
        weights=stems,
        data=(
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/vocab.json",
            "tokenizer/merges.txt",
            *(f"{component}/config.json" for component in stems),
        ),
    )
