"""Folders of models of the published sizes, in the hub's own layout, with random weights.

Weights are slices of one array of random numbers, so a folder is written as fast as memory or disk takes it;
what they are changes neither memory nor, but for a few percent of a matrix product, time.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.engines._random_files import Pool, in_shards, tensor_bytes, write_safetensors

ROOT = Path(__file__).resolve().parents[2]

VAE_22 = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
#: Of LTX-Video 0.9.7 and 0.9.8.
LTX_VAE = {
    "block_out_channels": (128, 256, 512, 1024, 2048),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "decoder_block_out_channels": (256, 512, 1024),
    "layers_per_block": (4, 6, 6, 2, 2),
    "decoder_layers_per_block": (5, 5, 5, 5),
    "spatio_temporal_scaling": (True,) * 4,
    "decoder_spatio_temporal_scaling": (True,) * 3,
    "decoder_inject_noise": (False,) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "upsample_residual": (True,) * 3,
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
UMT5 = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
T5 = {**UMT5, "vocab_size": 32128, "feed_forward_proj": "gated-gelu"}


Window = tuple[int, int, int, int]
"""Width, height, frames, steps."""


@dataclass(frozen=True)
class Model:
    """A published model: classes and configs of its parts, and the window it is measured with."""

    pipeline: str
    transformer_class: str
    vae_class: str
    text_class: str
    transformer: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    window: Window
    index: dict[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        return "ltx" if "LTX" in self.pipeline else "wan"


def _wan(
    transformer: dict[str, Any], vae: dict[str, Any], window: tuple[int, int, int, int], **more: Any
) -> Model:
    names = {
        "pipeline": "WanImageToVideoPipeline",
        "transformer_class": "WanTransformer3DModel",
        "vae_class": "AutoencoderKLWan",
        "text_class": "UMT5EncoderModel",
        "text": UMT5,
    }
    return Model(**{**names, "transformer": transformer, "vae": vae, "window": window, **more})


def _ltx(transformer: dict[str, Any], vae: dict[str, Any] = LTX_VAE, **more: Any) -> Model:
    names = {
        "pipeline": "LTXConditionPipeline",
        "transformer_class": "LTXVideoTransformer3DModel",
        "vae_class": "AutoencoderKLLTXVideo",
        "text_class": "T5EncoderModel",
        "text": T5,
    }
    return Model(**{**names, "transformer": transformer, "vae": vae, "window": (704, 480, 161, 8), **more})


MODELS: dict[str, Model] = {
    "a14b": _wan(
        {"in_channels": 36, "out_channels": 16},
        {},
        (832, 480, 81, 4),
        index={"boundary_ratio": 0.9, "transformer_2": ["diffusers", "WanTransformer3DModel"]},
    ),
    "ti2v": _wan(
        {
            "num_attention_heads": 24,
            "in_channels": 48,
            "out_channels": 48,
            "ffn_dim": 14336,
            "num_layers": 30,
        },
        VAE_22,
        (1280, 704, 121, 4),
        index={"expand_timesteps": True},
    ),
    "vace": _wan(
        {
            "num_attention_heads": 12,
            "in_channels": 16,
            "ffn_dim": 8960,
            "num_layers": 30,
            "vace_layers": list(range(0, 30, 2)),
            "vace_in_channels": 96,
        },
        {},
        (832, 480, 81, 4),
        pipeline="WanVACEPipeline",
        transformer_class="WanVACETransformer3DModel",
    ),
    "ltx-2b-distilled": _ltx({}),
    "ltx-13b-distilled": _ltx({"num_layers": 48, "attention_head_dim": 128, "cross_attention_dim": 4096}),
}


def tiny(model: Model) -> Model:
    """The same classes a few thousand times smaller, to rehearse with."""
    text = {"vocab_size": 1600, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    if model.family == "ltx":
        small = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
        small |= {"cross_attention_dim": 32, "caption_channels": 32, "in_channels": 8, "out_channels": 8}
        vae = {
            **model.vae,
            "latent_channels": 8,
            "block_out_channels": (8, 16, 16, 32, 32),
            "decoder_block_out_channels": (8, 16, 32),
            "layers_per_block": (1,) * 5,
            "decoder_layers_per_block": (1, 1, 2, 1),
        }
        text["feed_forward_proj"] = "gated-gelu"
    else:
        residual = bool(model.vae)
        small = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 32, "freq_dim": 16}
        small |= {"ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 64}
        vae = {**model.vae, "base_dim": 8, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
        vae |= {"decoder_base_dim": 8} if residual else {}
        if "vace_layers" in model.transformer:
            small["vace_layers"] = [0]
    window = (128, 64, 25 if model.family == "ltx" else 9, min(model.window[3], 4))
    return Model(
        **{
            **model.__dict__,
            "transformer": {**model.transformer, **small},
            "vae": vae,
            "text": text,
            "window": window,
        }
    )


def write_folder(home: Path, name: str, model: Model, dtype: torch.dtype, *, hollow: bool = False) -> Path:
    """Write what is missing of ``home/name`` and return it; the second of two experts links to the first.

    ``hollow``: the transformer's files have their headers and sizes, and take no space: another file is used.
    """
    import diffusers
    import transformers

    folder = home / name
    folder.mkdir(parents=True, exist_ok=True)
    transformer = getattr(diffusers, model.transformer_class)
    text = getattr(transformers, model.text_class)
    config = getattr(transformers, "UMT5Config" if model.family == "wan" else "T5Config")(**model.text)
    text_folder = home / ("umt5" if model.family == "wan" else "t5")
    write_component(text_folder, lambda: text(config), config, dtype, stem="model")
    _link(folder / "text_encoder", text_folder)
    stem = "diffusion_pytorch_model"
    parts = {"vae": (getattr(diffusers, model.vae_class), model.vae, False)}
    parts["transformer"] = (transformer, model.transformer, hollow)
    for part, (kind, settings, empty) in parts.items():
        write_component(
            folder / part, lambda kind=kind, s=settings: kind(**s), None, dtype, stem=stem, hollow=empty
        )
    if "transformer_2" in model.index:
        _link(folder / "transformer_2", folder / "transformer")
    _link(folder / "tokenizer", ROOT / "models" / "tiny_wan" / "tokenizer")
    scheduler = scheduler_of(model)
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(index_of(model, scheduler)))
    return folder


def scheduler_of(model: Model) -> Any:
    import diffusers

    if model.family != "wan":
        return diffusers.FlowMatchEulerDiscreteScheduler()
    made: Any = diffusers.UniPCMultistepScheduler
    return made(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, num_train_timesteps=1000
    )


def index_of(model: Model, scheduler: Any) -> dict[str, Any]:
    """What ``model_index.json`` holds."""
    import diffusers

    index: dict[str, Any] = {
        "_class_name": model.pipeline,
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", model.text_class],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", model.transformer_class],
        "vae": ["diffusers", model.vae_class],
    }
    if model.family == "wan":
        parts = ("transformer_2", "image_encoder", "image_processor")
        index |= {name: [None, None] for name in parts} | {"boundary_ratio": None}
    return {**index, **model.index}


def _link(path: Path, target: Path) -> None:
    if not path.is_symlink():
        path.symlink_to(target.resolve(), target_is_directory=True)


def empty_model(make: Any) -> Any:
    """A model without memory."""
    with torch.device("meta"):
        return make()


def write_component(
    folder: Path, make: Any, config: Any, dtype: torch.dtype, *, stem: str, hollow: bool = False
) -> None:
    """Random weights of a component in shards with their index, and its config."""
    from nodes.engines.weights import kept_by

    done = folder / "done"
    if done.exists() and (hollow or done.read_text() == "whole"):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    module = empty_model(make)
    if config is None:
        module.save_config(folder)
    else:
        config.architectures = [type(module).__name__]
        config.save_pretrained(folder)
    kept = kept_by(type(module), dtype) if config is None else None
    tensors = {
        name: (tuple(t.shape), torch.float32 if kept is not None and kept.is_float32(name) else dtype)
        for name, t in module.state_dict().items()
        if name != "encoder.embed_tokens.weight"  # tied
    }
    shards = list(in_shards(tensors))
    pool = Pool()
    names = [f"{stem}-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [f"{stem}.safetensors"]
    with ThreadPoolExecutor(8) as threads:
        jobs = zip(names, shards, strict=True)
        list(threads.map(lambda job: write_safetensors(folder / job[0], job[1], pool, hollow=hollow), jobs))
    if len(shards) > 1:
        where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": sum(map(tensor_bytes, tensors.values()))}, "weight_map": where}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    done.write_text("hollow" if hollow else "whole")


def write_in_format(path: Path, model: Model, kind: str, dtype: torch.dtype) -> None:
    """The transformer as one file in ``float8``, ``int8`` or a block format of GGML such as ``Q4_K``."""
    import diffusers
    import gguf

    from nodes.engines.weights import BLOCKS, kept_by

    if path.exists():
        return
    transformer = getattr(diffusers, model.transformer_class)
    module = empty_model(lambda: transformer(**model.transformer))
    kept = kept_by(transformer, dtype)
    part = path.with_suffix(f".part{path.suffix}")
    if kind not in BLOCKS:
        tensors: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for name, tensor in module.state_dict().items():
            if kept.quantises(name, tuple(tensor.shape)):
                base = name.removesuffix("weight")
                tensors[f"{base}stored"] = (
                    tuple(tensor.shape),
                    torch.int8 if kind == "int8" else torch.float8_e4m3fn,
                )
                tensors[f"{base}scale"] = ((tensor.shape[0], 1), torch.float32)
            else:
                tensors[name] = (tuple(tensor.shape), torch.float32 if kept.is_float32(name) else dtype)
        write_safetensors(part, tensors, Pool())
    else:
        block_bytes, values, _ = BLOCKS[kind]
        rng = np.random.default_rng(1)
        blocks = rng.integers(0, 256, (2**19, block_bytes), dtype=np.uint8)
        # The float16 scales at either end of a block: small numbers.
        for at in {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q8_0": (0,)}[kind]:
            blocks[:, at : at + 2] = np.frombuffer(np.float16(1e-4).tobytes(), np.uint8)
        plain = (rng.standard_normal(2**20, dtype=np.float32) * 0.02).astype(np.float32)
        writer = gguf.GGUFWriter(part, "wan")
        for name, tensor in module.state_dict().items():
            shape = tuple(tensor.shape)
            if kept.quantises(name, shape) and shape[1] % values == 0:
                count = shape[0] * shape[1] // values
                rows = np.resize(blocks, (count, block_bytes)) if count > len(blocks) else blocks[:count]
                raw = gguf.GGMLQuantizationType[kind]
                writer.add_tensor(name, rows.reshape(shape[0], -1), raw_dtype=raw)
            else:
                writer.add_tensor(name, np.resize(plain, shape))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    part.rename(path)
