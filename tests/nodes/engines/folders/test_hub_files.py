from __future__ import annotations

from pathlib import Path

import pytest

from nodes.engines.folders.hub_files import HubFile, data_files, wanted_files
from nodes.engines.folders.layout import Layout

LAYOUT = Layout("tiny", {"unet": "diffusion_pytorch_model", "text_encoder": "model"}, ("model_index.json",))
CONFIGS = ["model_index.json", "unet/config.json"]
FULL, HALF = "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"
SHARDS = [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
HALF_SHARDS = [f"unet/diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]


def wanted(names: list[str], *, half: bool = True, without: tuple[str, ...] = ()) -> list[str]:
    files = [HubFile(name, 10**9 if name == "notes.txt" else 10) for name in names]
    return [file.path for file in wanted_files(files, LAYOUT.without(without), half=half)]


@pytest.mark.parametrize(
    ("listed", "half", "taken"),
    [
        ([FULL], True, [FULL]),
        ([FULL, HALF], True, [HALF]),
        ([FULL, HALF], False, [FULL]),
        ([HALF], False, [HALF]),
        (SHARDS, True, SHARDS),
        ([*SHARDS, *HALF_SHARDS], True, HALF_SHARDS),
        ([*SHARDS, *HALF_SHARDS], False, SHARDS),
        # What nobody reads: pickles, code, weights for training, other components, large .txt.
        (["unet/diffusion_pytorch_model.bin", "pipeline.py", "model.ckpt"], True, []),
        (["unet/diffusion_pytorch_model.non_ema.safetensors", "safety_checker/model.safetensors"], True, []),
        (["v1-5-pruned.safetensors", "notes.txt", "README.md"], True, []),
        # Small files, wherever they are.
        (["tokenizer/merges.txt"], True, ["tokenizer/merges.txt"]),
        (["tokenizer/spiece.model"], True, ["tokenizer/spiece.model"]),
        (["text_encoder/model.safetensors"], True, ["text_encoder/model.safetensors"]),
    ],
)  # fmt: skip
def test_only_what_a_model_is_loaded_from_is_wanted_and_the_smaller_precision_of_two(
    listed: list[str], half: bool, taken: list[str]
) -> None:
    assert wanted([*CONFIGS, *listed], half=half) == sorted([*CONFIGS, *taken])


def test_weights_that_a_file_takes_the_place_of_are_not_wanted_and_their_config_is() -> None:
    assert wanted([*CONFIGS, FULL, "text_encoder/model.safetensors"], without=("unet",)) == [
        "model_index.json",
        "text_encoder/model.safetensors",
        "unet/config.json",
    ]


def test_of_a_folder_of_whatever_family_data_is_taken_and_nothing_that_runs_or_hides(tmp_path: Path) -> None:
    data = ["a.gguf", "model_index.json", "tokenizer/spiece.model", "unet/w.safetensors", "vocab.txt"]
    other = ["run.py", "unet/w.bin", "unet/w.ckpt", ".git/config.json", ".cache/x/w.safetensors", "README.md"]
    made_here = ["unet/farm_weights/w-int8.safetensors"]
    for name in (*data, *other, *made_here):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert sorted(data_files(tmp_path)) == data
