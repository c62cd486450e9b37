"""Importing of diffusers what a model needs, in place of all the models that it knows.

Its packages import every module they have: a U-Net brings 80 transformers with it, these their loaders and
caches, and these TorchDynamo, in all two thirds of the time that an engine's import takes. Modules name each
other in full, so a package need not be filled for them; whoever asks the package itself for a name has it
filled then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

#: Packages that bring all that is in them, and are seldom asked for it.
PACKAGES = frozenset(
    {
        "diffusers.hooks",
        "diffusers.models.autoencoders",
        "diffusers.models.controlnets",
        "diffusers.models.transformers",
        "diffusers.models.unets",
        "scipy.stats",  # schedulers ask it for one distribution, where they are set up to
    }
)
_DYNAMO = "torch._dynamo"


@contextmanager
def leanly() -> Iterator[None]:
    """Import engines in the body. What is imported already stays as it is.

    What diffusers' classes say to TorchDynamo as they are defined is not said: none of them is compiled here.
    """
    if "diffusers" in sys.modules:
        yield
        return
    import torch

    finder, disable = _Finder(), torch.compiler.disable
    sys.meta_path.insert(0, finder)
    torch.compiler.disable = _left_as_it_is  # type: ignore[assignment]
    try:
        if _DYNAMO not in sys.modules:
            _import_without_dynamo()
        yield
    finally:
        torch.compiler.disable = disable
        sys.meta_path.remove(finder)


def _import_without_dynamo() -> None:
    """What marks classes for TorchDynamo where that can be imported, and does without it elsewhere."""
    sys.modules[_DYNAMO] = None  # type: ignore[assignment]
    try:
        import diffusers.utils.torch_utils  # noqa: F401
    finally:
        del sys.modules[_DYNAMO]


def _left_as_it_is(function: Any = None, *_: Any, **__: Any) -> Callable[..., Any]:
    """In place of ``torch.compiler.disable``, which imports TorchDynamo."""
    return function if callable(function) else lambda decorated: decorated


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Unfilled(spec.loader)
        return spec


class _Unfilled(Loader):
    """Makes a package of its path alone; the first name that is not there fills it."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        real = self._real

        def fill(name: str) -> Any:
            is_asked_by_imports = name.startswith("__")
            if not is_asked_by_imports and module.__dict__.pop("__getattr__", None) is not None:
                real.exec_module(module)
                return getattr(module, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = fill
