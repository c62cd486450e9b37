from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from farm.capabilities.weights import Weights
from nodes.engines.model_files import files_of, held_models, is_here, store_key
from nodes.model_store.store import folder_of

TINY_WAN = Path(__file__).parents[3] / "models" / "tiny_wan"
#: A model of the hub whose folder has the same files as that of the farm's own.
NAME, KEY = "wan2.2-ti2v-5b", "Wan-AI--Wan2.2-TI2V-5B-Diffusers@b8fff7315c768468a5333511427288870b2e9635"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELFARM_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def keep(key: str) -> Path:
    """A folder of the store like the farm's own model, with what nobody should be given of it."""
    folder = folder_of(key)
    ignored = shutil.ignore_patterns("recipe", "*.jpg", "*.md")
    shutil.copytree(TINY_WAN, folder, ignore=ignored, copy_function=os.symlink)
    (folder / "pipeline.py").write_text("print('code')")
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    return folder


def test_of_a_model_of_the_hub_what_it_is_loaded_from_is_handed_over() -> None:
    assert not is_here(NAME)
    folder = keep(KEY)
    assert is_here(NAME)
    assert store_key(NAME) == KEY
    ((key, root, paths),) = files_of(NAME)
    assert (key, root) == (KEY, folder)
    assert {Path(path).suffix for path in paths} <= {".json", ".txt", ".safetensors"}
    assert {"model_index.json", "transformer/config.json", "text_encoder/model.safetensors"} <= set(paths)
    (folder / "text_encoder" / "model.safetensors").unlink()
    assert not is_here(NAME)


def test_what_a_file_takes_the_place_of_is_not_handed_over_and_the_file_is(tmp_path: Path) -> None:
    folder = keep(KEY)
    file = tmp_path / "mine.safetensors"
    file.write_bytes((2).to_bytes(8, "little") + b"{}")
    for shard in (folder / "transformer").glob("*.safetensors"):
        shard.unlink()
    weights = Weights.model_validate({"files": [str(file)]})
    assert is_here(NAME, weights)
    (_, _, paths), (key, root, alone) = files_of(NAME, weights)
    assert not [path for path in paths if path.startswith("transformer/") and path.endswith(".safetensors")]
    assert key.startswith("weights@")
    assert (root, alone) == (tmp_path, ("mine.safetensors",))


def test_a_model_that_was_added_is_handed_over_and_those_of_the_farm_are_everywhere() -> None:
    folder = keep("my-style")
    ((key, root, paths),) = files_of("my-style")
    assert (key, root) == ("my-style", folder)
    assert not [path for path in paths if path.endswith((".py", ".bin"))]
    assert files_of("tiny_wan") == []
    assert files_of(str(TINY_WAN)) == []
    assert is_here("tiny_wan")
    assert is_here(str(TINY_WAN))
    assert not is_here("nothing of that name")


def test_a_machine_tells_what_it_has_by_the_names_that_are_asked_for() -> None:
    keep(KEY)
    keep("my-style")
    keep(KEY.replace("b8fff", "00000"))
    held = {model.model: model.size_bytes for model in held_models()}
    assert {name for name, size in held.items() if size} == {
        NAME, f"{NAME}@{KEY.rpartition('@')[2]}", f"{NAME}@00000{KEY.rpartition('@')[2][5:]}", "my-style",
    }  # fmt: skip
    assert held["tiny_wan"] == 0
