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
