from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.model_files import Manifest, ModelHeld, Source
from farm.capabilities.weights import OWN_WEIGHTS, Weights
from farm.errors import CannotRun, InvalidInput
from farm.planning.render_task import RenderTask
from farm.running.cluster import Order
from nodes.engines.folders.weight_files import found_here, weights_key
from nodes.model_store import store
from nodes.model_store.holdings import recorded
from nodes.model_store.house import House
from nodes.work import models
from nodes.work.models import WorkerModels


class End:
    """What a worker's connection to its coordinator is to its models."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.secret = house.secret
        self.sources: dict[str, tuple[Source, ...]] = {}
        self.asked = 0
        self.told: list[tuple[list[ModelHeld], list[str], int | None]] = []

    def tell_models(self, held: Any, manifests: Any, port: int | None) -> None:
        self.told.append((held, manifests, port))

    def model_of(self, attempt_id: str) -> tuple[Manifest, ...]:
        self.asked += 1
        manifests = self._house.manifests("my-style", OWN_WEIGHTS)
        for manifest in manifests:
            self.sources[manifest.id] = self._house.sources(manifest.id, "attic/cuda0")
        return manifests


ORDER = Order.model_validate(
    {
        "attempt_id": "job-1/s0/1",
        "worker_id": "attic/cuda0",
        "task": RenderTask(
            model="my-style", frame_indices=(0,), shot_start=0, shot_end=1, height=16, width=16, fps=8,
            num_inference_steps=1, guidance_scale=1, seed=1,
        ),
        "rung": "resident",
        "need_bytes": 1,
        "inputs": {},
    }
)  # fmt: skip


def test_a_worker_whose_models_are_another_users_comes_up_without_telling_of_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def closed() -> Any:
        raise PermissionError(13, "Permission denied", "/models/store")

    monkeypatch.setattr(models, "held_models", closed)
    end = End(House(lambda *_: []))
    WorkerModels("", None).serve(end)  # type: ignore[arg-type]
    assert end.told == []
    assert "/models/store" in caplog.text


@pytest.fixture
def farms_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model as it lies on the farm's machine; the store is the worker's."""
    monkeypatch.setenv("REELFARM_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv(store.QUOTA_VARIABLE, raising=False)
    folder = tmp_path / "farm" / "my-style"
    folder.mkdir(parents=True)
    (folder / "w.safetensors").write_bytes(os.urandom(1000))
    return folder


@pytest.fixture
def also() -> list[tuple[str, Path, tuple[str, ...]]]:
    """What the farm hands over beside it."""
    return []


@pytest.fixture
def end(farms_folder: Path, also: list[tuple[str, Path, tuple[str, ...]]]) -> Iterator[Any]:
    house = House(lambda model, _: [(model, farms_folder, ("w.safetensors",)), *also])
    house.open("127.0.0.1", 0)
    yield End(house)
    house.close()


@pytest.fixture
def here(end: Any) -> WorkerModels:
    """A worker's models, that serves this coordinator."""
    made = WorkerModels("", None)
    made.serve(end)
    return made


def need(here: WorkerModels, end: Any) -> None:
    here.need(ORDER, end, lambda *_: None)


def content() -> bytes:
    return (store.folder_of("my-style") / "w.safetensors").read_bytes()


def test_a_model_that_is_not_here_comes_from_the_farm_once(
    here: WorkerModels, end: Any, farms_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(here, end)
    assert content() == (farms_folder / "w.safetensors").read_bytes()
    assert [held.model for held in end.told[-1][0] if held.size_bytes] == ["my-style"]
    monkeypatch.setattr(models, "bring", None)  # whoever calls it fails
    need(here, end)
    assert end.asked == 2, "a name that an owner gave may mean another model today"


def test_a_model_of_the_same_name_that_was_changed_comes_anew(
    here: WorkerModels, end: Any, farms_folder: Path
) -> None:
    need(here, end)
    (farms_folder / "w.safetensors").write_bytes(os.urandom(1001))
    need(here, end)
    assert content() == (farms_folder / "w.safetensors").read_bytes()
    assert len(recorded()) == 1


def test_another_model_of_that_name_that_its_owner_added_is_not_rendered_with(
    here: WorkerModels, end: Any, farms_folder: Path
) -> None:
    own = store.folder_of("my-style")
    own.mkdir(parents=True)
    (own / "w.safetensors").write_bytes(b"of its owner")
    with pytest.raises(InvalidInput, match="another model than the farm's of that name"):
        need(here, end)
    (own / "w.safetensors").write_bytes((farms_folder / "w.safetensors").read_bytes())
    need(here, end)
    assert recorded() == []


def test_within_its_quota_a_machine_drops_what_it_did_not_use_for_longest(
    here: WorkerModels, end: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at, name in enumerate(("old", "newer")):
        folder = store.folder_of(name)
        folder.mkdir(parents=True)
        (folder / "w.safetensors").write_bytes(bytes(1500))
        store._write_record(name, "farm")
        os.utime(store._record(name), (at, at))
    monkeypatch.setenv(store.QUOTA_VARIABLE, "3kB")
    need(here, end)
    assert [model.key for model in store.kept_models()] == ["my-style", "newer"]
    store.forget("my-style")
    monkeypatch.setenv(store.QUOTA_VARIABLE, "0.5kB")
    with pytest.raises(CannotRun, match=r"of a quota of 0\.0 GB"):
        need(here, end)


def test_a_lora_that_a_job_was_planned_with_comes_from_the_farm_and_is_found_by_its_content(
    here: WorkerModels, end: Any, also: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELFARM_WEIGHTS", str(tmp_path / "weights"))
    file = tmp_path / "farm" / "detail.safetensors"
    file.write_bytes(os.urandom(500))
    planned = found_here(Weights.model_validate({"loras": [str(file)]}))
    also.append((weights_key(planned.loras[0].fingerprint), file.parent, (file.name,)))
    order = ORDER.model_copy(update={"task": ORDER.task.model_copy(update={"weights": planned})})
    content = file.read_bytes()
    here.need(ORDER, end, lambda *_: None)
    store.forget(weights_key(planned.loras[0].fingerprint))
    file.rename(tmp_path / "elsewhere")  # on this machine it was never there
    with pytest.raises(CannotRun, match="is no file on this machine"):
        found_here(planned)
    (tmp_path / "elsewhere").rename(file)
    here.need(order, end, lambda *_: None)
    file.unlink()
    assert found_here(planned).loras[0].path.read_bytes() == content
    assert "weights@" not in str(end.told[-1][0])
