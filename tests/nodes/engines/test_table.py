from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.weights import Weights
from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun, InvalidInput, NotFound
from nodes.engines import table
from nodes.engines.i2vgen_xl import FAMILY as I2VGEN_XL
from nodes.engines.machine_choices import is_compiling
from nodes.engines.table import (
    FAMILIES,
    create_engine,
    known_models,
    licence_of,
    model_names,
    named_spec_of,
    shape_of,
    spec_of,
)
from nodes.engines.wan import FAMILY as WAN

TINY_WAN = Path(__file__).parents[3] / "models" / "tiny_wan"
WORKER = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=8 * GIB)


@pytest.mark.torch
def test_every_built_in_model_has_a_spec_and_an_engine_of_that_name() -> None:
    for entry in known_models():
        if entry["source"] == "built in":
            assert spec_of(entry["model"]).model == create_engine(entry["model"], WORKER).spec.model


def test_no_two_families_give_a_model_the_same_name_and_none_share_theirs() -> None:
    names = Counter(name for family in FAMILIES for name in family.models)
    assert set(names.values()) == {1}
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_what_a_family_says_of_its_models_is_what_their_specs_say() -> None:
    for entry in known_models():
        if entry["source"] == "built in":
            spec = spec_of(entry["model"])
            assert (entry["engine"], entry["takes"]) == (spec.engine, sorted(spec.takes))


@pytest.mark.slow
def test_the_table_and_every_spec_that_comes_with_the_farm_are_read_without_torch() -> None:
    code = (
        "import sys; from nodes.engines import folders, i2vgen_xl, known_models, memory, spec_of; "
        "[spec_of(each['model']) for each in known_models() if each['source'] == 'built in']; "
        "print(sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"model 'sora' is none of procedural, .*i2vgen-xl"):
        spec_of("sora")


def test_a_folder_of_another_family_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    with pytest.raises(InvalidInput, match=r"is a WanPipeline; there are engines here for I2VGenXLPipeline"):
        spec_of(str(tmp_path))


def test_a_farm_that_others_can_reach_takes_models_by_name_alone(tiny_i2vgen_xl_folder: Path) -> None:
    assert spec_of(str(tiny_i2vgen_xl_folder)).engine == "i2vgen_xl"
    with pytest.raises(NotFound, match="`farm models add FOLDER` gives a folder a name"):
        named_spec_of(str(tiny_i2vgen_xl_folder))
    assert named_spec_of("procedural").engine == "procedural"
    assert "i2vgen-xl" in model_names()


def test_a_model_that_comes_with_the_farm_is_found_by_name_on_every_machine(
    tiny_i2vgen_xl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(I2VGEN_XL, models={**I2VGEN_XL.models, "own": tiny_i2vgen_xl_folder})
    monkeypatch.setattr(table, "FAMILIES", tuple(own if f is I2VGEN_XL else f for f in FAMILIES))
    monkeypatch.chdir(tmp_path)
    assert {"tiny_wan", "own"} <= set(model_names())
    entry = next(model for model in known_models() if model["model"] == "own")
    assert entry["source"] == "built in"
    assert set(entry["takes"]) == named_spec_of("own").takes
    assert create_engine("own", WORKER, cpu_threads=2).spec == named_spec_of("own").on("cpu")


def test_a_model_folder_is_loaded_on_the_kind_of_worker_that_asks(tiny_i2vgen_xl_folder: Path) -> None:
    engine = create_engine(str(tiny_i2vgen_xl_folder), WORKER)
    assert engine.spec == spec_of(str(tiny_i2vgen_xl_folder)).on("cpu")


def test_an_unknown_attention_back_end_is_refused(
    tiny_i2vgen_xl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELFARM_ATTENTION", "flash9")
    with pytest.raises(InvalidInput, match="expected sdpa or xformers"):
        create_engine(str(tiny_i2vgen_xl_folder), WORKER)


def test_what_is_to_be_compiled_is_told_before_a_model_is_loaded_where_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not is_compiling("cuda")
    monkeypatch.setenv("REELFARM_COMPILE", "1")
    monkeypatch.setenv("PATH", "")
    assert not is_compiling("cpu")
    with pytest.raises(CannotRun, match="Triton and a C compiler"):
        is_compiling("cuda")
    monkeypatch.setenv("REELFARM_COMPILE", "yes")
    with pytest.raises(InvalidInput, match="expected 0 or 1"):
        is_compiling("cuda")


def test_a_model_without_a_transformer_of_its_own_runs_with_its_own_weights_alone() -> None:
    for weights in (Weights(format="int8"), Weights.model_validate({"loras": [__file__ + ".safetensors"]})):
        with pytest.raises((InvalidInput, CannotRun)) as refused:
            spec_of("procedural", weights)
        assert refused.value.param in ("weights", "loras")


def test_a_farm_that_others_can_reach_takes_weights_by_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.gguf").write_bytes(b"")
    monkeypatch.setenv("REELFARM_WEIGHTS", str(tmp_path))
    path = Weights.model_validate({"files": [f"high={tmp_path / 'a.gguf'}"]})
    with pytest.raises(InvalidInput, match=r"`farm models add FILE` there.* its name, a\.gguf$") as refused:
        named_spec_of("tiny_wan", path)
    assert refused.value.param == "weights"
    with pytest.raises(InvalidInput, match=r"tiny_wan has one transformer; leave high= out"):
        named_spec_of("tiny_wan", Weights.model_validate({"files": ["high=a.gguf"]}))


@pytest.mark.parametrize("ask", [spec_of, named_spec_of])
def test_a_model_that_left_the_farm_is_told_from_one_it_never_had(ask: Any) -> None:
    with pytest.raises(NotFound, match=r"^model tiny_i2v came with the farm until tiny_wan took its place"):
        ask("tiny_i2v")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_hub_model_is_asked_for_by_name_by_repository_and_by_a_commit_behind_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def fetched(repository: str, revision: str, **_: Any) -> Path:
        asked.append((repository, revision))
        folder = tmp_path / (COMMIT if revision == "main" else revision)
        folder.exists() or shutil.copytree(TINY_WAN, folder)
        return folder

    monkeypatch.setattr("nodes.engines.family.model_folder", fetched)
    wan, known = "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "b8fff7315c768468a5333511427288870b2e9635"
    for name, revision in (
        ("wan2.2-ti2v-5b", known),
        (wan, known),
        (f"wan2.2-ti2v-5b@{COMMIT}", COMMIT),
        (f"{wan}@{COMMIT}", COMMIT),
    ):
        spec = named_spec_of(name)
        assert asked[-1] == (wan, revision)
        assert spec.model == "wan2.2-ti2v-5b" + ("" if revision == known else f"@{COMMIT}")
        assert spec.revision == revision


def test_what_has_no_known_commit_is_called_by_the_one_it_is_taken_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TINY_WAN, tmp_path / COMMIT)
    monkeypatch.setattr(
        "nodes.engines.family.model_folder", lambda repository, revision, **_: tmp_path / COMMIT
    )
    unpinned = replace(WAN.models["wan2.2-ti2v-5b"], revision=None)  # type: ignore[type-var]
    assert str(unpinned) == "Wan-AI/Wan2.2-TI2V-5B-Diffusers at main"
    family = replace(WAN, models={"unpinned": unpinned})
    monkeypatch.setattr(table, "FAMILIES", (family,))
    spec = spec_of("unpinned")
    assert (spec.model, spec.revision) == (f"unpinned@{COMMIT}", COMMIT)
    assert spec_of(spec.model) == spec


@pytest.mark.parametrize("commit", ["", "main", "0123", COMMIT[:-1], COMMIT.upper(), f"{COMMIT}0"])
def test_a_malformed_commit_is_refused_wherever_a_name_is_taken(commit: str) -> None:
    for ask in (spec_of, named_spec_of, licence_of):
        with pytest.raises(
            InvalidInput, match=r"expected wan2\.2-ti2v-5b@COMMIT with the 40 hex digits"
        ) as told:
            ask(f"wan2.2-ti2v-5b@{commit}")
        assert told.value.param == "model"


def test_every_model_has_a_licence_and_some_ask_for_it() -> None:
    restricted = {model["model"] for model in known_models() if model["licence"]["restricts_use"]}
    assert restricted == {"ltx-video-0.9.5", "ltx-video-0.9.8-13b-distilled", "svd", "svd-xt"}
    found = licence_of(f"Lightricks/LTX-Video-0.9.8-13B-distilled@{COMMIT}")
    assert found is not None
    assert (found.name, found.restricts_use) == ("LTX Video Open Weights License", True)
    assert licence_of("tiny_wan") is None
    assert licence_of("/some/folder") is None


def test_weights_of_an_expert_that_a_file_replaces_are_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fetched(repository: str, revision: str, *, layout: Any, **_: Any) -> Path:
        asked.append(layout.weights)
        raise CannotRun("no network")

    monkeypatch.setattr("nodes.engines.family.model_folder", fetched)
    (tmp_path / "h.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    weights = Weights.model_validate({"files": [f"high={tmp_path / 'h.safetensors'}"]})
    with pytest.raises(CannotRun, match="no network"):
        spec_of("wan2.2-i2v-a14b", weights)
    assert asked[0].keys() == {"transformer_2", "vae", "text_encoder"}


@pytest.mark.parametrize(
    ("model", "engine", "window", "weights", "gigabytes"),
    [
        ("wan2.2-i2v-a14b", "wan", 81, {"transformer": 28.6e9, "transformer_2": 28.6e9}, (68, 70)),
        ("wan2.2-ti2v-5b", "wan", 121, {"transformer": 10.0e9, "vae": 1.41e9}, (22, 24)),
        ("wan2.1-vace-1.3b", "wan", 81, {"transformer": 4.3e9}, (15, 17)),
        ("ltx-video-0.9.8-13b-distilled", "ltx", 161, {"transformer": 26.0e9}, (37, 39)),
    ],
)
def test_a_model_whose_files_are_elsewhere_is_known_by_its_shapes(
    model: str, engine: str, window: int, weights: dict[str, float], gigabytes: tuple[float, float]
) -> None:
    spec = shape_of(model)
    assert spec is not None
    assert (spec.model, spec.engine, spec.window_frames) == (model, engine, window)
    for name, nbytes in weights.items():
        assert spec.component_bytes[name] == pytest.approx(nbytes, rel=0.03)
    assert gigabytes[0] < spec.disk_bytes / 1e9 < gigabytes[1]
    # Few steps for a distilled model: what it is called is told, too.
    assert (spec.default_steps < 10) == ("distilled" in model)


def test_of_other_models_nothing_is_known_without_their_files() -> None:
    assert [shape_of(m) for m in ("i2vgen-xl", "tiny_wan", "/no/folder", "sora")] == [None] * 4
