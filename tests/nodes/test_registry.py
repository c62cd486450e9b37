from __future__ import annotations

from pathlib import Path

import pytest

from farm.capabilities import GIB, Worker
from farm.errors import InvalidInput, NotFound
from nodes.registry import OWN_MODELS, create_engine, known_models, model_names, named_spec_of, spec_of

WORKER = Worker(id="here/cpu0", node="here", kind="cpu", device_name="CPU", vram_bytes=8 * GIB)


def test_every_built_in_model_has_a_spec_and_an_engine_of_that_name() -> None:
    for entry in known_models():
        if entry["source"] == "built in":
            assert spec_of(entry["model"]).model == create_engine(entry["model"], WORKER).spec.model


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"model 'sora' is none of procedural, .*i2vgen-xl"):
        spec_of("sora")


def test_a_folder_of_another_family_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    with pytest.raises(InvalidInput, match=r"is a WanPipeline; there are engines here for I2VGenXLPipeline"):
        spec_of(str(tmp_path))


def test_a_farm_that_others_can_reach_takes_models_by_name_alone(tiny_i2vgen_xl_folder: Path) -> None:
    assert spec_of(str(tiny_i2vgen_xl_folder)).engine == "i2vgen_xl"
    with pytest.raises(NotFound):
        named_spec_of(str(tiny_i2vgen_xl_folder))
    assert named_spec_of("procedural").engine == "procedural"
    assert "i2vgen-xl" in model_names()


def test_a_model_that_comes_with_the_farm_is_found_by_name_on_every_machine(
    tiny_i2vgen_xl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OWN_MODELS, "own", tiny_i2vgen_xl_folder)
    monkeypatch.chdir(tmp_path)
    assert {"tiny_i2v", "own"} <= set(model_names())
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
