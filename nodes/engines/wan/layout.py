"""Which kind of Wan a folder holds, its parts and its files. Told by configs: kinds share pipeline names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from farm.errors import CannotRun
from nodes.engines.folders import Kept, Layout, config_of, read_json
from nodes.engines.placement import Parts

#: How the frames that are given reach the transformer: as channels beside the noisy latents (Wan 2.2 A14B),
#: as clean latents in their place (TI2V-5B), or through blocks of their own (VACE).
Kind = Literal["channels", "in_place", "vace"]

PIPELINES = ("WanImageToVideoPipeline", "WanPipeline", "WanVACEPipeline")
TEXT_ENCODER = "text_encoder"
VAE = "vae"
TEXT_PARTS = Parts(denoisers=(), vae=None, encoders=(TEXT_ENCODER,))
#: What the classes keep in float32 of a transformer and of the text encoder, whatever the rest is in, and
#: what of it stays out of formats in fewer bits: by diffusers' names, and by those of Wan's authors.
KEPT = {
    "transformer": Kept(
        plain=("patch_embedding", "condition_embedder", "norm", "text_embedding", "time_projection"),
        float32=(
            "rope",
            "time_embedder",
            "scale_shift_table",
            "norm1",
            "norm2",
            "norm3",
            "time_embedding",
            "modulation",
        ),
    ),
    TEXT_ENCODER: Kept(float32=("wo",)),
}
_TRANSFORMERS = ("WanTransformer3DModel", "WanVACETransformer3DModel")


@dataclass(frozen=True)
class WanFolder:
    """What the configs of a Wan folder say."""

    path: Path
    kind: Kind
    #: The transformer's, and its second expert's where there is one.
    experts: tuple[str, ...]
    #: The level of noise below which the second expert goes on; None with one.
    boundary: float | None
    transformer: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    scheduler: dict[str, Any]

    @property
    def parts(self) -> Parts:
        """What renders windows: prompts are encoded apart from them."""
        return Parts(denoisers=self.experts, vae=VAE, encoders=())

    @property
    def layout(self) -> Layout:
        return layout(self.experts, self.path)

    @property
    def frames_per_latent(self) -> int:
        return int(self.vae.get("scale_factor_temporal") or 4)

    @property
    def pixels_per_latent(self) -> int:
        """Pixels of a side that one latent stands for."""
        return int(self.vae.get("scale_factor_spatial") or 8)

    @property
    def dim(self) -> int:
        """Elements of a token between the layers."""
        return int(self.transformer["num_attention_heads"]) * int(self.transformer["attention_head_dim"])

    @property
    def num_layers(self) -> int:
        return int(self.transformer["num_layers"])

    @property
    def patch(self) -> int:
        """Latents of a side that make a token."""
        return int(self.transformer["patch_size"][1])


def claims(path: Path) -> bool:
    """Whether ``path`` is a folder of a Wan model, whatever its pipeline is called."""
    transformer = config_of(path, "transformer/config.json").get("_class_name")
    vae = config_of(path, "vae/config.json").get("_class_name")
    return transformer in _TRANSFORMERS and vae == "AutoencoderKLWan"


def layout(experts: tuple[str, ...], folder: Path | None = None) -> Layout:
    """The files of a folder with these experts."""
    diffusers, tokenizer = "diffusion_pytorch_model", "tokenizer/tokenizer.json"
    sentence_pieces = "tokenizer/spiece.model"
    if folder is not None and not (folder / tokenizer).is_file() and (folder / sentence_pieces).is_file():
        tokenizer = sentence_pieces
    weights = {**dict.fromkeys((*experts, VAE), diffusers), TEXT_ENCODER: "model"}
    return Layout(
        family="Wan",
        weights=weights,
        data=(
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/tokenizer_config.json",
            tokenizer,
            *(f"{component}/config.json" for component in weights),
        ),
    )


def read_folder(path: Path) -> WanFolder:
    """Which Wan a folder holds.

    Raises:
        CannotRun: a config cannot be read, or the model has nothing to be given an image with.
    """
    configs = {}
    for name in ("transformer", VAE, TEXT_ENCODER):
        if not (path / name / "config.json").is_file():
            raise CannotRun(f"{path} lacks {name}/config.json: download the model again", param="source")
        configs[name] = read_json(path, f"{name}/config.json")
    index = config_of(path, "model_index.json")
    kind = _kind(path, index, configs["transformer"], configs[VAE])
    second = (index.get("transformer_2") or [None])[-1] is not None
    boundary = float(index.get("boundary_ratio") or 0)
    if second and not 0 < boundary < 1:
        raise CannotRun(
            f"{path / 'model_index.json'} names two transformers and no boundary_ratio between 0 and 1: it "
            "says below which level of noise the second goes on"
        )
    return WanFolder(
        path=path,
        kind=kind,
        experts=("transformer", "transformer_2") if second else ("transformer",),
        boundary=boundary if second else None,
        transformer=configs["transformer"],
        vae=configs[VAE],
        text_encoder=configs[TEXT_ENCODER],
        scheduler=config_of(path, "scheduler/scheduler_config.json"),
    )


def _kind(path: Path, index: dict[str, Any], transformer: dict[str, Any], vae: dict[str, Any]) -> Kind:
    if transformer.get("image_dim") is not None:
        raise CannotRun(
            f"{path} reads images through CLIP (Wan 2.1 image to video): there are engines here for Wan 2.2 "
            "I2V-A14B and TI2V-5B and for Wan 2.1 VACE",
            param="model",
        )
    if transformer.get("_class_name") == "WanVACETransformer3DModel":
        return "vace"
    channels, latent = transformer["in_channels"], vae["z_dim"]
    if channels == 2 * latent + (vae.get("scale_factor_temporal") or 4):
        return "channels"
    if channels == latent and index.get("expand_timesteps"):
        return "in_place"
    raise CannotRun(
        f"{path} makes video of text alone (its transformer takes {channels} channels, its latents have "
        f"{latent}): nothing would hold its windows together; use a Wan that takes an image",
        param="model",
    )
