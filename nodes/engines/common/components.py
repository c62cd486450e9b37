"""Reading the components of a model folder onto the host, with one clear error for what is damaged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from farm.errors import CannotRun
from nodes.engines.folders import variant

#: While one thread builds a model, the libraries make every other thread's weights without memory too.
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def reading() -> Iterator[None]:
    """Read a model inside the body: one at a time in this process, and what the libraries say is logged."""
    with _ONE_AT_A_TIME:
        # A worker reports its own phases.
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        diffusers_logging.disable_progress_bar()
        # What they warn of belongs into the attempt's log; by themselves they write to stderr only.
        for logging in (transformers_logging, diffusers_logging):
            logging.enable_propagation()
        yield


def half_of_the_card() -> torch.dtype:
    """bfloat16 where the card multiplies matrices in it, float16 before (Turing, Pascal)."""
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def read_component(kind: Any, component: Path, *, stem: str, dtype: torch.dtype) -> Any:
    """Load one component onto the host in ``dtype``, to be run and not trained; inside ``reading()``.

    Args:
        kind: Its class, of diffusers or transformers.
        component: Its folder.
        stem: Of its weight files (see ``Layout``).
        dtype: Of its weights; half precision reads the smaller files where there are two.

    Raises:
        CannotRun: a file is damaged, or weights are missing from it.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    try:
        module, report = kind.from_pretrained(
            component,
            dtype=dtype,
            variant=variant(component, stem, half=half),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CannotRun(f"cannot load {component} ({reason}): download the model again") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CannotRun(
            f"{component} lacks {len(missing)} weights ({missing[0]}, ...): download the model again"
        )
    return module.eval().requires_grad_(False)
