"""Which files of a hub repository a model needs: the smaller precision where there are two, never code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from nodes.engines.folders.layout import Layout

_SMALL_FILES = ("*.json", "*.txt", "*/spiece.model")
#: A file that goes by such a name and is larger is none of these.
_SMALL_BYTES = 64 * 2**20


@dataclass(frozen=True)
class HubFile:
    """A file as the hub, or a folder, lists it."""

    path: str
    size_bytes: int
    #: Of the bytes of a large file; None: the hub keeps it in git.
    sha256: str | None = None
    #: Of git's blob, where it is kept there.
    git_oid: str | None = None


#: What a model folder is made of. All else is left behind: pickles and code first of all.
_DATA = frozenset({".json", ".txt", ".safetensors", ".gguf", ".model"})
#: Conversions of weights that a machine makes for itself.
_MADE_HERE = "farm_weights"


def listed_in(folder: Path) -> list[HubFile]:
    """The files of a folder, as the hub would list them."""
    return [
        HubFile(file.relative_to(folder).as_posix(), file.stat().st_size)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]


def data_files(folder: Path) -> list[str]:
    """Configs, tokenizers and weights of a folder of whatever family; nothing hidden, no code, no pickles."""
    found = []
    for file in listed_in(folder):
        parts = file.path.split("/")
        hidden = any(part.startswith(".") or part == _MADE_HERE for part in parts)
        if Path(file.path).suffix in _DATA and not hidden:
            found.append(file.path)
    return found


def wanted_files(files: Iterable[HubFile], layout: Layout, *, half: bool = True) -> list[HubFile]:
    """Of these files, those that a model of ``layout`` is loaded from, by path.

    Configs and tokenizers, and of each component's weights the half ones where there are such (with ``half``
    False the full ones), else those there are. Nothing else: no pickles, no code, no other components.
    """
    listed = sorted(files, key=lambda file: file.path)
    wanted = {file.path for file in listed if file.path in layout.data or _is_small(file)}
    for component, stem in layout.weights.items():
        wanted |= {file.path for file in _weights(listed, component, stem, half=half)}
    return [file for file in listed if file.path in wanted]


def _is_small(file: HubFile) -> bool:
    return file.size_bytes <= _SMALL_BYTES and any(fnmatchcase(file.path, name) for name in _SMALL_FILES)


def _weights(files: Sequence[HubFile], component: str, stem: str, *, half: bool) -> list[HubFile]:
    name = re.compile(
        rf"{re.escape(component)}/{re.escape(stem)}(?P<half>\.fp16)?(-\d{{5}}-of-\d{{5}})?\.safetensors"
    )
    found = [(file, named) for file in files if (named := name.fullmatch(file.path))]
    in_half = [file for file, named in found if named["half"]]
    in_full = [file for file, named in found if not named["half"]]
    return in_half if in_half and (half or not in_full) else in_full
