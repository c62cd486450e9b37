"""A tiny LTX-Video of the real one's classes, in the files of the hub, and an engine that has read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from farm.planning.render_task import RenderTask
from tests.nodes.engines.conftest import smooth_picture

if TYPE_CHECKING:
    from nodes.engines.ltx.engine import LTXVideo

HEIGHT, WIDTH, FRAMES = 64, 96, 25

LATENT_CHANNELS = 8
TRANSFORMER = {
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "num_layers": 2,
    "caption_channels": 24,
}
#: As 0.9.7 and 0.9.8 have it.
VAE = {
    "latent_channels": LATENT_CHANNELS,
    "block_out_channels": (8, 16, 16, 32, 32),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "decoder_block_out_channels": (8, 16, 32),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 2, 1),
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
#: As 0.9.0 has it.
OLD_VAE = {
    "latent_channels": LATENT_CHANNELS,
    "block_out_channels": (8, 16, 32, 32),
    "decoder_block_out_channels": (8, 16, 32, 32),
    "layers_per_block": (1,) * 5,
    "decoder_layers_per_block": (1,) * 5,
}
#: As the conversion script of 0.9.0 has it.
OLD_SCHEDULER = {
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "shift_terminal": 0.1,
}


def _write_tokenizer(folder: Path) -> int:
    """A SentencePiece model that spells letters, as the hub has it; returns its size."""
    from sentencepiece import sentencepiece_model_pb2 as protocol

    model = protocol.ModelProto()
    pieces = [("<pad>", 3), ("</s>", 3), ("<unk>", 2), *((c, 1) for c in "▁abcdefghijklmnopqrstuvwxyz,.")]
    for i, (piece, kind) in enumerate(pieces):
        entry = model.pieces.add()
        entry.piece, entry.score, entry.type = piece, -float(i), kind
    trainer = model.trainer_spec
    trainer.model_type, trainer.unk_id, trainer.eos_id, trainer.pad_id, trainer.bos_id = 1, 2, 1, 0, -1
    model.normalizer_spec.add_dummy_prefix = True
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    settings = {
        "tokenizer_class": "T5Tokenizer",
        "model_max_length": 128,
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "extra_ids": 0,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(pieces)


def write_tiny_ltx(
    folder: Path,
    *,
    pipeline: str = "LTXConditionPipeline",
    vae: dict[str, Any] = VAE,
    scheduler: dict[str, Any] | None = None,
) -> None:
    """Write the whole folder: seeded random weights in shards with their index."""
    import torch
    from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    (folder / "tokenizer").mkdir(parents=True)
    vocabulary = _write_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        text = T5Config(
            vocab_size=vocabulary,
            d_model=24,
            d_kv=8,
            num_heads=2,
            d_ff=48,
            num_layers=2,
            feed_forward_proj="gated-gelu",
        )
        parts = {
            "transformer": LTXVideoTransformer3DModel(**TRANSFORMER),
            "vae": AutoencoderKLLTXVideo(**vae),
            "text_encoder": T5EncoderModel(text),
        }
        parts["vae"].latents_mean.normal_(std=0.2)
        parts["vae"].latents_std.uniform_(0.5, 1.5)
    for name, part in parts.items():
        part.save_pretrained(folder / name, max_shard_size="20KB")
    FlowMatchEulerDiscreteScheduler(**(scheduler or {})).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": pipeline,
        "_diffusers_version": "0.32.0",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLLTXVideo"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session")
def tiny_ltx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.9.8's layout, not distilled."""
    folder = tmp_path_factory.mktemp("ltx") / "LTX-Video-tiny"
    write_tiny_ltx(folder)
    return folder


@pytest.fixture(scope="session")
def old_ltx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.9.0's: a decoder without a timestep, levels shifted by the number of tokens."""
    folder = tmp_path_factory.mktemp("ltx") / "LTX-Video-old"
    write_tiny_ltx(folder, pipeline="LTXPipeline", vae=OLD_VAE, scheduler=OLD_SCHEDULER)
    return folder


def engine_of(folder: Path) -> LTXVideo:
    from nodes.engines.ltx.engine import LTXVideo
    from nodes.engines.ltx.placements import CUDA
    from nodes.engines.ltx.spec import ltx_spec

    spec = ltx_spec(folder, model="tiny")
    # Every rung of a card, on a CPU.
    rungs = {rung.name: rung for rung in spec.rungs}
    assert {placement.rung for placement in CUDA} == rungs.keys()
    return LTXVideo(spec, folder, device="cpu")


@pytest.fixture(scope="session")
def _ltx(tiny_ltx_folder: Path) -> LTXVideo:
    return engine_of(tiny_ltx_folder)


@pytest.fixture
def ltx(_ltx: LTXVideo) -> LTXVideo:
    """The shared engine at its first rung."""
    _ltx.load("resident")
    return _ltx


@pytest.fixture(scope="session")
def old_ltx(old_ltx_folder: Path) -> LTXVideo:
    engine = engine_of(old_ltx_folder)
    engine.load("resident")
    return engine


@pytest.fixture(scope="session")
def picture() -> Callable[[int], NDArray[np.uint8]]:
    """``picture(n)``: a smooth picture (64, 96, 3), another for every n."""
    return lambda n: smooth_picture(n, HEIGHT, WIDTH)


@pytest.fixture(scope="session")
def task() -> RenderTask:
    return RenderTask(
        model="tiny",
        prompt="the cat turns",
        negative_prompt="blurry",
        frame_indices=tuple(range(FRAMES)),
        shot_start=0,
        shot_end=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        fps=25,
        num_inference_steps=4,
        guidance_scale=3.0,
        seed=21,
    )
