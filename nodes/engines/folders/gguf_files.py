"""GGUF files: what they hold and where, read from their headers by ``gguf``, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from farm.errors import CannotRun
from nodes.engines.folders.stored_tensors import StoredTensor


@dataclass(frozen=True)
class GgufFile:
    """The tensors of a GGUF file by name, and what it says it is: ``wan``, ``ltxv``, or None."""

    architecture: str | None
    tensors: dict[str, StoredTensor]


def gguf_file(path: Path) -> GgufFile:
    """Read the header of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

    Types are GGML's names (``Q4_K``), shapes as torch has them: the file counts dimensions from the last.

    Raises:
        CannotRun: the file is truncated or no GGUF file.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        field = reader.get_field("general.architecture")
        architecture = None if field is None else str(field.contents())
        shapes = {each.name: _shape(reader, each.name, each.shape.tolist()) for each in reader.tensors}
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        # What the reader says is of arrays and indices, and nothing that an owner of files could use.
        raise CannotRun(f"{path} is no GGUF file, or was cut short: download it again") from error
    return GgufFile(
        architecture,
        {
            each.name: StoredTensor(
                path, int(each.data_offset), int(each.n_bytes), each.tensor_type.name, shapes[each.name]
            )
            for each in reader.tensors
        },
    )


def _shape(reader: object, name: str, counted_from_last: list[int]) -> tuple[int, ...]:
    """A tensor's shape; tools that rearrange elements to fill blocks note the original one."""
    field = reader.get_field(f"comfy.gguf.orig_shape.{name}")  # type: ignore[attr-defined]
    return tuple(int(n) for n in (reversed(counted_from_last) if field is None else field.contents()))
