from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from farm.errors import CannotRun, InvalidInput, LicenceNotAccepted, NotFound
from nodes.engines import known_models, named_spec_of, spec_of
from nodes.hosting.models_kept import add_model, fetch_model, remove_model
from nodes.model_store.store import kept, kept_models

TINY_WAN = Path(__file__).parents[3] / "models" / "tiny_wan"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELFARM_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("REELFARM_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture
def my_style(tmp_path: Path) -> Path:
    """A model folder of a person, with what should not be in it."""
    folder = tmp_path / "my-style"
    shutil.copytree(TINY_WAN, folder, ignore=shutil.ignore_patterns("recipe", "*.jpg", "*.md"))
    (folder / "pipeline.py").write_text("print('code')")
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (folder / ".git").mkdir()
    (folder / ".git" / "config.json").write_text("{}")
    return folder


def test_a_folder_that_is_added_is_a_model_by_its_name_for_everybody(my_style: Path) -> None:
    name, place = add_model(my_style)
    assert (name, kept("my-style")) == ("my-style", place)
    shutil.rmtree(my_style)
    assert spec_of("my-style").engine == "wan"
    assert named_spec_of("my-style").model == "my-style"
    (entry,) = [each for each in known_models() if each["model"] == "my-style"]
    assert (entry["engine"], entry["here"], entry["source"]) == ("wan", True, "added here")


def test_neither_code_nor_pickles_nor_hidden_files_come_with_a_folder(my_style: Path) -> None:
    _, place = add_model(my_style)
    assert {path.suffix for path in place.rglob("*") if path.is_file()} <= {".json", ".txt", ".safetensors"}
    assert not (place / ".git").exists()


def test_a_model_that_is_removed_is_gone_and_its_owners_folder_stays(my_style: Path) -> None:
    add_model(my_style)
    remove_model("my-style")
    assert (kept_models(), my_style.is_dir()) == ([], True)
    with pytest.raises(NotFound, match="nothing of my-style is kept"):
        remove_model("my-style")


def test_a_file_of_weights_is_asked_for_by_its_name_once_it_is_added(tmp_path: Path) -> None:
    file = tmp_path / "detail.safetensors"
    file.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert add_model(file) == ("detail.safetensors", tmp_path / "weights" / "detail.safetensors")
    assert add_model(file)[0] == "detail.safetensors"
    remove_model("detail.safetensors")
    assert file.exists()
    assert not (tmp_path / "weights" / "detail.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model.ckpt", "is a pickle, a program that is never opened here: convert it"),
        ("model.zip", "is no file of weights"),
        ("nothing", "is no folder and no file"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, name: str, says: str) -> None:
    if name != "nothing":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidInput, match=says):
        add_model(tmp_path / name)


def test_a_folder_of_no_family_and_a_name_that_is_taken_are_refused(tmp_path: Path, my_style: Path) -> None:
    other = tmp_path / "pictures"
    other.mkdir()
    (other / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(InvalidInput, match="there are engines here for"):
        add_model(other)
    with pytest.raises(InvalidInput, match="rename the folder"):
        add_model(my_style.rename(tmp_path / "tiny_wan"))
    add_model((tmp_path / "tiny_wan").rename(my_style))
    with pytest.raises(InvalidInput, match="my-style is kept already"):
        add_model(my_style)


def test_what_comes_with_the_farm_stays_and_needs_no_fetch(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="comes with the farm and stays"):
        remove_model("tiny_wan")
    assert fetch_model("tiny_wan", tmp_path, lambda *_: None) == TINY_WAN


def test_nothing_is_fetched_before_a_licence_that_restricts_use_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(LicenceNotAccepted, match="accept it once"):
        fetch_model("svd", tmp_path, lambda *_: None)
