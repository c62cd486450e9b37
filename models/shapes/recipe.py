"""The shapes of models that have a name and are fetched on first use, as ``models/shapes`` keeps them.

What a card needs for a model follows from its configs and the shapes of its tensors. Of the published sizes
both are known without their files, so ``farm models`` can tell what of them would run here.

    python models/shapes/recipe.py                    # writes models/shapes/NAME.json
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import diffusers  # noqa: E402
import transformers  # noqa: E402

from benchmarks.engines._full_size import MODELS, Model, empty_model, index_of, scheduler_of  # noqa: E402

SHAPES = Path(__file__).parent
#: By the farm's name, that of its size here.
NAMES = {
    "wan2.2-i2v-a14b": "a14b",
    "wan2.2-ti2v-5b": "ti2v",
    "wan2.1-vace-1.3b": "vace",
    "ltx-video-0.9.8-13b-distilled": "ltx-13b-distilled",
}
_TIED = "encoder.embed_tokens.weight"
_NUMBER = re.compile(r"\.\d+\.")


def shapes_of(tensors: Mapping[str, tuple[int, ...]]) -> list[list[Any]]:
    """``[pattern, shape, numbers]`` of these: names that differ in their first number alone, and have one
    shape, as one; ``*`` stands for it."""
    found: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for name, shape in tensors.items():
        number = _NUMBER.search(name)
        pattern = name if number is None else name[: number.start()] + ".*." + name[number.end() :]
        numbers = found.setdefault((pattern, shape), [])
        if number is not None:
            numbers.append(int(number[0][1:-1]))
    return [[pattern, list(shape), numbers] for (pattern, shape), numbers in found.items()]


def described(model: Model) -> dict[str, Any]:
    """The files of a model's folder: configs as they are, weight files as the shapes in them."""
    text = getattr(transformers, "UMT5Config" if model.family == "wan" else "T5Config")(**model.text)
    text.architectures = [model.text_class]
    parts: dict[str, tuple[Any, str]] = {
        "transformer": (getattr(diffusers, model.transformer_class), "diffusion_pytorch_model"),
        "vae": (getattr(diffusers, model.vae_class), "diffusion_pytorch_model"),
    }
    scheduler = scheduler_of(model)
    files: dict[str, Any] = {
        "model_index.json": index_of(model, scheduler),
        "scheduler/scheduler_config.json": json.loads(scheduler.to_json_string()),
        "text_encoder/config.json": json.loads(text.to_json_string(use_diff=False)),
        "tokenizer/tokenizer_config.json": {},
        "tokenizer/tokenizer.json": {},
    }
    weights: dict[str, Any] = {}
    for name, (kind, stem) in parts.items():
        settings = model.transformer if name == "transformer" else model.vae
        module = empty_model(lambda kind=kind, settings=settings: kind(**settings))
        files[f"{name}/config.json"] = json.loads(module.to_json_string())
        weights[f"{name}/{stem}.safetensors"] = shapes_of(_shapes(module))
    if "transformer_2" in model.index:
        for of in (files, weights):
            of |= {
                n.replace("transformer/", "transformer_2/"): v for n, v in of.items() if "transformer/" in n
            }
    encoder = empty_model(lambda: getattr(transformers, model.text_class)(text))
    weights["text_encoder/model.safetensors"] = shapes_of(_shapes(encoder))
    return {"files": files, "weights": weights}


def _shapes(module: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in module.state_dict().items() if name != _TIED}


def written(value: dict[str, Any]) -> str:
    """A line for each file's config, and one for each pattern of tensors."""
    files = ",\n".join(f"  {json.dumps(name)}: {json.dumps(each)}" for name, each in value["files"].items())
    weights = ",\n".join(
        f"  {json.dumps(name)}: [\n" + ",\n".join(f"   {json.dumps(each)}" for each in rows) + "\n  ]"
        for name, rows in value["weights"].items()
    )
    return f'{{\n "files": {{\n{files}\n }},\n "weights": {{\n{weights}\n }}\n}}\n'


def main() -> None:
    SHAPES.mkdir(exist_ok=True)
    for name, size in NAMES.items():
        (SHAPES / f"{name}.json").write_text(written(described(MODELS[size])))


if __name__ == "__main__":
    main()
