"""How a machine's owner wants its engines to run: variables that are set before it joins."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import get_args

from farm.capabilities import DeviceKind
from farm.errors import CannotRun, InvalidInput
from nodes.engines.engine import Attentions

#: ``sdpa`` (PyTorch's own, the default) or ``xformers``.
ATTENTION_VARIABLE = "REELFARM_ATTENTION"
#: ``1``: what large transformers compute between their layers is compiled for the card. The first window of a
#: shape waits for it; each further one takes less.
COMPILE_VARIABLE = "REELFARM_COMPILE"


def chosen_attention() -> Attentions:
    """This machine's attention back-end.

    Raises:
        InvalidInput: one is asked for that is not known.
    """
    chosen = os.environ.get(ATTENTION_VARIABLE, "sdpa")
    known: tuple[Attentions, ...] = get_args(Attentions)
    for attention in known:
        if chosen == attention:
            return attention
    raise InvalidInput(f"{ATTENTION_VARIABLE} is {chosen!r}, expected sdpa or xformers")


def is_compiling(kind: DeviceKind) -> bool:
    """Whether engines on a device of that kind compile; a CPU's do not.

    Raises:
        InvalidInput: the variable is neither 0 nor 1.
        CannotRun: it is 1, and there is nothing to compile with.
    """
    chosen = os.environ.get(COMPILE_VARIABLE, "0")
    if chosen not in ("0", "1"):
        raise InvalidInput(f"{COMPILE_VARIABLE} is {chosen!r}, expected 0 or 1")
    if chosen == "0" or kind == "cpu":
        return False
    compilers = ("cc", "gcc", "clang", "cl")
    if find_spec("triton") is None or not any(shutil.which(os.environ.get("CC", c)) for c in compilers):
        raise CannotRun(
            f"{COMPILE_VARIABLE} is 1, and that takes Triton and a C compiler (cc, gcc or clang), which this "
            f"machine lacks: install them, or unset {COMPILE_VARIABLE}"
        )
    return True
