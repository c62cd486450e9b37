"""What a folder of LTX-Video holds, told by its configs: several pipelines save the same parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.errors import CannotRun
from nodes.engines.folders import Kept, Layout, config_of, read_json
from nodes.engines.placement import Parts

PIPELINES = ("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline")
TRANSFORMER, VAE, TEXT_ENCODER = "transformer", "vae", "text_encoder"
#: The halves of the VAE, which are never needed at once: together they are more than half a 2B transformer.
VAE_ENCODER, VAE_DECODER = "vae_encoder", "vae_decoder"
#: What renders windows, and what encodes prompts apart from them.
PARTS = Parts(denoisers=(TRANSFORMER,), vae=VAE_DECODER, encoders=(VAE_ENCODER,))
TEXT_PARTS = Parts(denoisers=(), vae=None, encoders=(TEXT_ENCODER,))
#: Folders with weights, and the stem of their weight files.
WEIGHTS = {TRANSFORMER: "diffusion_pytorch_model", VAE: "diffusion_pytorch_model", TEXT_ENCODER: "model"}
#: What of each component stays out of formats in fewer bits, by its class; none keeps float32.
KEPT = {TRANSFORMER: Kept(plain=("norm",))}
_CLASSES = {
    TRANSFORMER: "LTXVideoTransformer3DModel",
    VAE: "AutoencoderKLLTXVideo",
    TEXT_ENCODER: "T5EncoderModel",
}
_SCHEDULER = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True)
class LtxFolder:
    """What the configs of a folder say."""

    path: Path
    transformer: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    scheduler: dict[str, Any]
    #: Trained to render in a few steps without guidance: its name says so, no config does.
    distilled: bool

    @property
    def frames_per_latent(self) -> int:
        return _compression(self.vae, "temporal_compression_ratio", "patch_size_t", 1)

    @property
    def pixels_per_latent(self) -> int:
        """Pixels of a side that one latent, and so one token, stands for."""
        return _compression(self.vae, "spatial_compression_ratio", "patch_size", 4)

    @property
    def takes_any_frame(self) -> bool:
        """Trained to be given frames anywhere, as 0.9.5 and later are; before, only the first one."""
        return "LTXVideo095DownBlock3D" in self.vae.get("down_block_types", ())

    @property
    def dim(self) -> int:
        """Width of the transformer."""
        heads = int(self.transformer.get("num_attention_heads", 32))
        return heads * int(self.transformer.get("attention_head_dim", 64))

    @property
    def num_layers(self) -> int:
        return int(self.transformer.get("num_layers", 28))

    @property
    def latent_channels(self) -> int:
        return int(self.transformer.get("in_channels", 128))


def _compression(vae: dict[str, Any], ratio: str, patch: str, default_patch: int) -> int:
    if vae.get(ratio) is not None:
        return int(vae[ratio])
    scalings = vae.get("spatio_temporal_scaling", (True, True, True, False))
    return int(vae.get(patch, default_patch)) << sum(map(bool, scalings))


def claims(path: Path) -> bool:
    """Whether ``path`` is a folder of this family, whatever its pipeline is called."""
    return all(
        config_of(path, f"{component}/config.json").get("_class_name") == _CLASSES[component]
        for component in (TRANSFORMER, VAE)
    )


def layout(folder: Path) -> Layout:
    """The files of a folder; its tokenizer as the hub has it (spiece.model), or as it is saved today."""
    tokenizer = "tokenizer/tokenizer.json"
    if not (folder / tokenizer).is_file() and (folder / "tokenizer/spiece.model").is_file():
        tokenizer = "tokenizer/spiece.model"
    return Layout(
        family="LTX-Video",
        weights=WEIGHTS,
        data=(
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/tokenizer_config.json",
            tokenizer,
            *(f"{component}/config.json" for component in WEIGHTS),
        ),
    )


def read_folder(path: Path, weights: Path | None = None) -> LtxFolder:
    """What the configs of a folder say; its files are there (see ``layout``).

    ``weights``: a file in place of its transformer's, whose name tells whether it is distilled.

    Raises:
        CannotRun: a config cannot be read, or is of a model that this engine does not run.
    """
    configs = {name: read_json(path, f"{name}/config.json") for name in WEIGHTS}
    for name in (TRANSFORMER, VAE):
        if configs[name].get("_class_name") != _CLASSES[name]:
            raise CannotRun(
                f"{path / name} is {configs[name].get('_class_name')}, expected {_CLASSES[name]}: use the "
                "engine of its family"
            )
    if (
        configs[TRANSFORMER].get("patch_size", 1) != 1
        or configs[TRANSFORMER].get("patch_size_t", 1) != 1
        or configs[VAE].get("patch_size_t", 1) != 1
    ):
        raise CannotRun(
            f"{path} cuts latents into patches; there is an engine here for patches of one latent"
        )
    if any(configs[VAE].get("decoder_inject_noise", ())):
        raise CannotRun(
            f"the VAE of {path} draws noise of its own while it decodes, as that of LTX-Video 0.9.1: no two "
            "workers would give the same frames; use 0.9.5 or later"
        )
    scheduler = read_json(path, "scheduler/scheduler_config.json")
    if scheduler.get("_class_name") != _SCHEDULER or scheduler.get("stochastic_sampling"):
        raise CannotRun(
            f"the scheduler of {path} is {scheduler.get('_class_name')}, expected {_SCHEDULER} without "
            "noise of its own: only then can steps be run anywhere"
        )
    index = config_of(path, "model_index.json")
    names = (path.name, path.parent.parent.name if path.parent.name == "snapshots" else "")
    said = (*names, str(index.get("_name_or_path", ""))) if weights is None else (weights.name,)
    return LtxFolder(
        path=path,
        transformer=configs[TRANSFORMER],
        vae=configs[VAE],
        text_encoder=configs[TEXT_ENCODER],
        scheduler=scheduler,
        distilled=any("distilled" in name.lower() for name in said),
    )
