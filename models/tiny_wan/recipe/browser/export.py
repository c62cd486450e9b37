"""Writes tiny_wan for a browser: four networks as ONNX, its tokenizer, and a manifest of what they are.

    python -m models.tiny_wan.recipe.browser.export FOLDER [--model MODEL]

Weights travel in half the bytes where that loses nothing, which is everywhere in a model that is stored in
float16, and are made float32 where they are loaded. Names of files carry their hashes, so that whoever has a
file may keep it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from onnx import numpy_helper
from torch import nn
from torch.export import Dim
from transformers import UMT5EncoderModel

from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.browser.networks import Decoder, Encoder, TextEncoder, Transformer
from nodes.engines.folders import model_facts
from nodes.engines.wan.facts import ModelFacts
from nodes.engines.wan.layout import read_folder
from nodes.engines.wan.steps import schedule

MODEL = Path(__file__).resolve().parents[2]
MANIFEST = "manifest.json"
#: Of ONNX's operations; older runtimes read it too.
OPSET = 18
_PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
#: Traced at sizes that no rule could be made of; every size may be another afterwards.
_FRAMES, _HEIGHT, _WIDTH = 17, 144, 176
_ANY = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC, 4: Dim.DYNAMIC}


def networks(model: Path) -> Mapping[str, Callable[[], nn.Module]]:
    """What a browser runs, by name; each is read when it is called."""

    def read(kind: Any, part: str) -> Any:
        return kind.from_pretrained(model / part, torch_dtype=torch.float32).eval()

    return {
        "text": lambda: TextEncoder(
            UMT5EncoderModel.from_pretrained(model / "text_encoder", dtype=torch.float32).eval()
        ),
        "encoder": lambda: Encoder(read(AutoencoderKLWan, "vae")),
        "transformer": lambda: Transformer(read(WanTransformer3DModel, "transformer")),
        "decoder": lambda: Decoder(read(AutoencoderKLWan, "vae")),
    }


def export(model: Path, folder: Path, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Write the files of a model that is given its known frames in channels; returns the manifest.

    Where they were written of the same model already, nothing is done: it takes a minute.

    Args:
        model: A folder of the classes and the sizes' rules of tiny_wan.
        folder: Is made; what was there is removed. The manifest comes last: where it is, everything is.
        say: Told what is done next.
    """
    source = _source(model)
    with suppress(OSError, ValueError):
        there: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        if there.get("source") == source:
            return there
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    facts, parts = model_facts(model, ModelFacts), read_folder(model)
    files = {}
    for name, read in networks(model).items():
        say(f"writing {name}")
        graph = _graph(name, read(), parts.transformer, int(parts.vae["z_dim"]), facts.max_sequence_length)
        files[name] = _kept(folder, name, ".onnx", in_half(graph).SerializeToString())
    files["tokenizer"] = _kept(
        folder, "tokenizer", ".json", (model / "tokenizer/tokenizer.json").read_bytes()
    )
    steps = schedule(parts.scheduler, facts.default_steps)
    manifest = {
        "source": source,
        "files": files,
        "steps": [[step.sigma, step.next_sigma, step.timestep] for step in steps],
        "latent_channels": int(parts.vae["z_dim"]),
        "frames_per_latent": parts.frames_per_latent,
        "pixels_per_latent": parts.pixels_per_latent,
        "fps": facts.native_fps,
        "told_fps": list(facts.told_fps),
        "prompt_template": facts.prompt_template,
        "max_sequence_length": facts.max_sequence_length,
        "windows": list(facts.windows),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def _source(model: Path) -> str:
    """The hash of all that the files are made of: the model, and these modules."""
    found = hashlib.sha256()
    modules = (Path(__file__), Path(__file__).with_name("networks.py"), Path(whole_clip.__file__))
    parts = sorted(path for part in _PARTS for path in (model / part).iterdir())
    for path in (*modules, *parts, model / "farm.json"):
        found.update(path.read_bytes())
    return found.hexdigest()


def _graph(
    name: str, network: nn.Module, transformer: Mapping[str, Any], channels: int, tokens: int
) -> onnx.ModelProto:
    latents = ((_FRAMES - 1) // 4 + 1, _HEIGHT // 8, _WIDTH // 8)
    inputs: dict[str, tuple[torch.Tensor, dict[int, Any] | None]]
    if name == "text":
        inputs = {each: (torch.ones(1, tokens, dtype=torch.long), None) for each in ("ids", "mask")}
    elif name == "encoder":
        inputs = {"clip": (torch.zeros(1, 3, _FRAMES, _HEIGHT, _WIDTH), _ANY)}
    elif name == "decoder":
        inputs = {"latents": (torch.zeros(1, channels, *latents), _ANY)}
    else:
        inputs = {
            "latents": (torch.zeros(1, transformer["in_channels"], *latents), _ANY),
            "timestep": (torch.tensor([999.0]), None),
            "text": (torch.zeros(1, tokens, transformer["text_dim"]), None),
        }
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network.eval(),
            tuple(example for example, _ in inputs.values()),
            input_names=list(inputs),
            output_names=["made"],
            dynamic_shapes=tuple(sizes for _, sizes in inputs.values()),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return _without_traces(program.model_proto)


def in_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, the weights that float16 holds exactly stored so, and cast where they are used.

    A runtime folds the casts when it loads the graph.
    """
    casts = []
    for stored in graph.graph.initializer:
        if stored.data_type != onnx.TensorProto.FLOAT:
            continue
        numbers = numpy_helper.to_array(stored)
        with np.errstate(over="ignore"):
            half = numbers.astype(np.float16)
        if numbers.size < 64 or not np.array_equal(half.astype(np.float32), numbers):
            continue
        name = stored.name
        stored.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    halved = {cast.output[0] for cast in casts}
    shapes = [value for value in graph.graph.value_info if value.name not in halved]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(shapes)
    return graph


def _without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Without what tells where in which file a node was made: it is long, and other on every machine."""
    for node in graph.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.metadata_props[:]
    return graph


def _kept(folder: Path, name: str, suffix: str, content: bytes) -> dict[str, Any]:
    found = hashlib.sha256(content).hexdigest()
    file = folder / f"{name}-{found[:12]}{suffix}"
    file.write_bytes(content)
    return {"name": file.name, "sha256": found, "bytes": len(content)}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of operations of packages that are not here, and of others' deprecations."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    arguments = parser.parse_args()
    manifest = export(arguments.model, arguments.folder)
    print(f"{sum(file['bytes'] for file in manifest['files'].values()) / 1e6:.1f} MB in {arguments.folder}")


if __name__ == "__main__":
    main()
