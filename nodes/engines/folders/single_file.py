"""One file with a model's weights, as people share transformers: safetensors or GGUF."""

from __future__ import annotations

from pathlib import Path

from farm.errors import CannotRun
from nodes.engines.folders.gguf_files import gguf_file
from nodes.engines.folders.stored_tensors import StoredTensor, stored_tensors


def file_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a weight file by the names it gives them.

    Raises:
        CannotRun: there is no such file, it is of neither format, or it is damaged.
    """
    if not path.is_file():
        raise CannotRun(f"{path} is no file: give the path of a .safetensors or .gguf file", param="weights")
    if path.suffix == ".gguf":
        return gguf_file(path).tensors
    if path.suffix == ".safetensors":
        return stored_tensors(path)
    raise CannotRun(
        f"{path} ends with {path.suffix or 'nothing'}: only .safetensors and .gguf files are read, for other "
        "formats can hold programs",
        param="weights",
    )
