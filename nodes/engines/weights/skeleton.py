"""A component without its weights, from its config: what it has, and what its class keeps as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers.initialization import no_init_weights

from farm.errors import CannotRun
from nodes.engines.folders import Kept


def skeleton(kind: Any, component: Path) -> nn.Module:
    """A module with its parameters on the meta device and its computed buffers real; inside ``reading()``.

    Args:
        kind: Its class, of diffusers or transformers.
        component: Its folder, with a ``config.json``.

    Raises:
        CannotRun: the config does not make a model of this class.
    """
    try:
        # Values without memory need not be drawn: for a text encoder that is most of the work.
        with init_empty_weights(include_buffers=False), no_init_weights():
            if hasattr(kind, "load_config"):  # diffusers
                module = kind.from_config(kind.load_config(component, local_files_only=True))
            else:
                module = kind(kind.config_class.from_pretrained(component, local_files_only=True))
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CannotRun(
            f"{component / 'config.json'} does not describe a {kind.__name__} ({reason}): "
            "download the model again"
        ) from error
    assert isinstance(module, nn.Module)
    return module.eval().requires_grad_(False)


def kept_by(kind: Any, dtype: torch.dtype) -> Kept:
    """What a model's class says of itself: its float32 parts, and what it keeps out of 8-bit storage.

    A class of diffusers keeps its ``_keep_in_fp32_modules`` in float32 in any dtype, one of transformers in
    float16 alone; neither kind is ever stored in fewer bits.
    """
    names = tuple(getattr(kind, "_keep_in_fp32_modules", None) or ())
    strict = tuple(getattr(kind, "_keep_in_fp32_modules_strict", None) or ())
    always = hasattr(kind, "load_config") or dtype == torch.float16
    skipped = tuple(getattr(kind, "_skip_layerwise_casting_patterns", None) or ())
    return Kept(
        plain=(*skipped, *(f".{name}." for name in names)),
        float32=(*strict, *names) if always else strict,
    )


def linear_weights(module: nn.Module) -> set[str]:
    """The names of the weights of a module's linear layers."""
    return {f"{name}.weight" for name, each in module.named_modules() if isinstance(each, nn.Linear)}
