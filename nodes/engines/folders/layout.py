"""The files a folder of one family has, in diffusers format: whether all are there, and which are read.

Only safetensors weights are ever read: no pickles, no remote code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from farm.errors import CannotRun

_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True)
class Layout:
    """The files that a family needs in a folder."""

    #: The family, as a refusal names it.
    family: str
    #: Components with weights, and the stem of their weight files.
    weights: Mapping[str, str]
    #: The other files, by their path inside the folder.
    data: tuple[str, ...]

    def without(self, components: Iterable[str]) -> Layout:
        """The same but for the weights of some components, which come from elsewhere or are not wanted."""
        left = set(components)
        return replace(self, weights={name: stem for name, stem in self.weights.items() if name not in left})


def check_folder(folder: Path, layout: Layout) -> None:
    """Raise CannotRun naming every file of the model that ``folder`` lacks."""
    missing = [name for name in layout.data if not (folder / name).is_file()]
    missing += missing_weights(folder, layout)
    if missing:
        raise CannotRun(
            f"{folder} is not a complete {layout.family} folder, it lacks {', '.join(missing)}: download the "
            "model again in diffusers format with safetensors weights",
            param="source",
        )


def missing_weights(folder: Path, layout: Layout) -> list[str]:
    """The weight files that a component of the folder lacks in both precisions, or of a series it has."""
    missing = []
    for component, stem in layout.weights.items():
        names = {path.name for path in weight_files(folder / component, stem)}
        wanted = {name for each in names for name in _series(each)} or {f"{stem}.safetensors"}
        missing += [f"{component}/{name}" for name in sorted(wanted - names)]
    return missing


def _series(name: str) -> list[str]:
    """Every file of the series that a weight file belongs to: large components are saved in several."""
    found = _SHARD.fullmatch(name)
    if found is None:
        return [name]
    count = int(found["count"])
    return [f"{found['stem']}-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]


def weight_files(component: Path, stem: str) -> list[Path]:
    """The weight files in the folder of one component, of either precision, by name."""
    return sorted(component.glob(f"{stem}*.safetensors"))


def variant(component: Path, stem: str, *, half: bool) -> str | None:
    """Which weight files of a component's folder to read: "fp16" or None for the plain ones.

    Half precision prefers the smaller fp16 files; each is used when it is the only one.
    """
    names = {path.name for path in weight_files(component, stem)}
    has_fp16 = any(f"{stem}.fp16" in name for name in names)
    has_plain = any(f"{stem}.fp16" not in name for name in names)
    return "fp16" if has_fp16 and (half or not has_plain) else None
