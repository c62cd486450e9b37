from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.capabilities.model_files import Source
from farm.capabilities.weights import OWN_WEIGHTS
from nodes.model_store.bringing import bring
from nodes.model_store.house import MAX_TOLD, House

MODEL, OTHER = "a" * 64, "b" * 64
ATTIC, CELLAR = Source(host="10.0.0.2", port=8479), Source(host="10.0.0.3", port=8479)


@pytest.fixture
def house() -> Iterator[House]:
    house = House(lambda *_: [])
    house.open("127.0.0.1", 0)
    yield house
    house.close()


def others(house: House, worker_id: str, manifest_id: str = MODEL) -> tuple[Source, ...]:
    """Whom a worker is told of beside the farm's own machine, which is always the first."""
    first, *rest = house.sources(manifest_id, worker_id)
    assert first.host == "127.0.0.1"
    return tuple(rest)


def test_whoever_has_a_model_or_takes_it_is_told_to_others_that_take_it(house: House) -> None:
    assert house.heard("attic/cuda0", ATTIC.host, ATTIC.port, frozenset({MODEL})) == {MODEL}
    assert house.heard("cellar/cuda0", CELLAR.host, CELLAR.port, frozenset()) == set()
    assert others(house, "cellar/cuda0") == (ATTIC,)
    assert house.takes("cellar/cuda0", MODEL) == {MODEL}
    assert house.takers(MODEL) == ["cellar/cuda0"]
    assert others(house, "den/cuda0") == (ATTIC, CELLAR)
    assert others(house, "den/cuda0", OTHER) == ()


def test_a_machine_is_not_told_of_itself_nor_one_of_its_workers_of_another(house: House) -> None:
    for slot in ("cuda0", "cuda1"):
        house.heard(f"attic/{slot}", ATTIC.host, ATTIC.port, frozenset({MODEL}))
    assert others(house, "attic/cuda1") == ()
    assert others(house, "cellar/cuda0") == (ATTIC,)


def test_whoever_is_gone_or_has_dropped_it_is_told_no_more(house: House) -> None:
    house.heard("attic/cuda0", ATTIC.host, ATTIC.port, frozenset({MODEL, OTHER}))
    assert house.heard("attic/cuda0", ATTIC.host, ATTIC.port, frozenset({OTHER})) == {MODEL}
    assert others(house, "cellar/cuda0") == ()
    assert house.gone("attic/cuda0") == {OTHER}
    assert others(house, "cellar/cuda0", OTHER) == ()
    assert house.gone("nobody") == set()


def test_a_machine_without_a_port_gives_nothing(house: House) -> None:
    house.heard("attic/cuda0", ATTIC.host, None, frozenset({MODEL}))
    assert others(house, "cellar/cuda0") == ()


def test_of_a_large_farm_each_is_told_of_some(house: House) -> None:
    for number in range(3 * MAX_TOLD):
        house.heard(f"n{number}/cuda0", f"10.0.1.{number}", 8479, frozenset({MODEL}))
    assert len(set(others(house, "attic/cuda0"))) == MAX_TOLD


def test_a_model_of_the_farms_own_machine_is_given_from_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELFARM_MODELS", str(tmp_path / "models"))
    (tmp_path / "here").mkdir()
    content = os.urandom(1000)
    (tmp_path / "here" / "w.safetensors").write_bytes(content)
    (tmp_path / "here" / "secret.bin").write_bytes(b"not of the model")
    house = House(lambda model, _: [(f"{model}@1", tmp_path / "here", ("w.safetensors",))])
    assert house.manifests("m", OWN_WEIGHTS) == (), "on a farm of one machine nothing is handed over"
    house.open("127.0.0.1", 0)
    (manifest,) = house.manifests("m", OWN_WEIGHTS)
    folder = bring(manifest, lambda: house.sources(manifest.id, "attic/cuda0"), lambda: house.secret)
    house.close()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"w.safetensors": content}


def test_a_secret_is_another_one_once_a_machine_was_removed(house: House) -> None:
    before = house.secret
    house.renew_secret()
    assert house.secret != before
