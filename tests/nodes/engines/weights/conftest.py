"""Tiny components on disk, in the layout of the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tiny_wan(tmp_path: Path) -> Callable[..., Path]:
    """Writes the transformer of a Wan of two blocks to ``folder``, in several files; returns the folder."""

    def write(folder: Path = tmp_path / "model" / "transformer", seed: int = 0, **changes: Any) -> Path:
        import torch
        from diffusers import WanTransformer3DModel

        torch.manual_seed(seed)
        sizes = {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 16,
            "freq_dim": 16,
            "ffn_dim": 32,
            "num_layers": 2,
        }
        model = WanTransformer3DModel(**{**sizes, **changes})
        model.save_pretrained(folder, max_shard_size="40KB")
        return folder

    return write


@pytest.fixture
def of_authors() -> Callable[[str], str]:
    """The name that Wan's authors give to a tensor of diffusers' name."""
    parts = {
        "condition_embedder.time_embedder.linear_1": "time_embedding.0",
        "condition_embedder.time_embedder.linear_2": "time_embedding.2",
        "condition_embedder.text_embedder.linear_1": "text_embedding.0",
        "condition_embedder.text_embedder.linear_2": "text_embedding.2",
        "condition_embedder.time_proj": "time_projection.1",
        "attn1": "self_attn",
        "attn2": "cross_attn",
        ".to_out.0.": ".o.",
        ".to_q.": ".q.",
        ".to_k.": ".k.",
        ".to_v.": ".v.",
        "ffn.net.0.proj": "ffn.0",
        "ffn.net.2": "ffn.2",
        ".norm2.": ".norm3.",
        "proj_out": "head.head",
    }

    def name_of(name: str) -> str:
        if name == "scale_shift_table":
            return "head.modulation"
        for ours, theirs in parts.items():
            name = name.replace(ours, theirs)
        return name.replace("scale_shift_table", "modulation")

    return name_of
