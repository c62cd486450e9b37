from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from farm.errors import CannotRun, InvalidInput
from nodes.engines.folders.download import OnBytes, cached_folder, model_folder
from nodes.engines.folders.layout import Layout
from nodes.model_store import store
from tests.nodes.engines.folders.hub_server import COMMIT, Hub, hub_over

LAYOUT = Layout("tiny", {"unet": "diffusion_pytorch_model"}, ("model_index.json", "unet/config.json"))
FULL = "unet/diffusion_pytorch_model.safetensors"
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"
LARGE_BYTES = 300_000


def write_model(folder: Path) -> None:
    """Files of a model as its authors publish it: both precisions, a pickle and code."""
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "TinyPipeline"}')
    (folder / "unet" / "config.json").write_text("{}")
    (folder / FULL).write_bytes(os.urandom(2 * LARGE_BYTES))
    (folder / HALF).write_bytes(os.urandom(LARGE_BYTES))
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"for training")
    (folder / "pipeline.py").write_text("print('code of a stranger')")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process uses, with a cache of its own, and no pause between tries."""
    write_model(tmp_path / "published")
    with hub_over(tmp_path / "published") as server:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("REELFARM_MODELS", str(tmp_path / "models"))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", LARGE_BYTES // 10)
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def fetch(on_bytes: OnBytes | None = None, revision: str = COMMIT) -> Path:
    return model_folder("owner/tiny", revision, layout=LAYOUT, on_bytes=on_bytes)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_model_comes_once_in_the_precision_that_is_read_and_without_code_or_pickles(hub: Hub) -> None:
    folder = fetch()
    assert folder.name == f"owner--tiny@{COMMIT}"
    assert names(folder) == {"model_index.json", "unet/config.json", HALF}
    assert (folder / HALF).read_bytes() == (hub.folder / HALF).read_bytes()
    hub.fetched.clear()
    assert fetch() == folder
    assert hub.fetched == []


def test_weights_that_exist_in_one_precision_only_come_in_that_one(hub: Hub) -> None:
    (hub.folder / HALF).unlink()
    assert FULL in names(fetch())


def test_what_main_is_now_is_taken_where_no_commit_is_known(hub: Hub) -> None:
    folder = fetch(revision="main")
    assert folder == fetch()
    assert cached_folder("owner/tiny", "main", layout=LAYOUT) == folder


def test_a_fetch_that_was_broken_off_half_way_goes_on_where_it_was(hub: Hub) -> None:
    hub.breaks = 1
    folder = fetch()
    ranges = [asked for name, asked in hub.fetched if name == HALF]
    assert ranges == [None, f"bytes={LARGE_BYTES // 2}-"]
    assert (folder / HALF).read_bytes() == (hub.folder / HALF).read_bytes()


def test_a_fetch_that_is_ended_keeps_what_has_come(hub: Hub) -> None:
    def end_in_the_weights(done: int, total: int, name: str) -> None:
        if name == HALF and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(end_in_the_weights)
    assert cached_folder("owner/tiny", COMMIT, layout=LAYOUT) is None
    hub.fetched.clear()
    folder = fetch()
    ((name, asked),) = hub.fetched
    assert (name, asked) == (HALF, f"bytes={LARGE_BYTES * 4 // 10}-")
    assert (folder / HALF).read_bytes() == (hub.folder / HALF).read_bytes()


def test_what_is_whole_in_the_hubs_own_cache_is_used_from_there(hub: Hub) -> None:
    theirs = Path(snapshot_download("owner/tiny", revision=COMMIT))
    hub.fetched.clear()
    assert fetch() == theirs
    assert hub.fetched == []


def test_how_far_a_fetch_is_ends_at_all_of_its_bytes(hub: Hub) -> None:
    told: list[tuple[int, int, str]] = []
    folder = fetch(lambda done, total, name: told.append((done, total, name)))
    whole = sum((folder / name).stat().st_size for name in names(folder))
    assert told[-1][:2] == (whole, whole)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_a_file_that_arrives_damaged_is_fetched_again_and_a_mirror_that_changes_it_is_named(hub: Hub) -> None:
    hub.tampered[HALF] = 1
    assert (fetch() / HALF).read_bytes() == (hub.folder / HALF).read_bytes()
    shutil.rmtree(fetch())
    hub.tampered[HALF] = 2
    with pytest.raises(CannotRun, match="arrives with another hash"):
        fetch()
    assert cached_folder("owner/tiny", COMMIT, layout=LAYOUT) is None


def test_a_hub_that_is_busy_is_asked_again(hub: Hub) -> None:
    hub.busy_times = 2
    assert HALF in names(fetch())


@pytest.mark.parametrize(
    ("token", "endpoint_is_wrong", "says"),
    [
        ("secret", False, r"accept its terms at .*owner/tiny, and set HF_TOKEN"),
        (None, True, r"no such repository or commit; check HF_ENDPOINT"),
    ],
)
def test_what_the_hub_refuses_is_told_with_what_to_do(
    hub: Hub, token: str | None, endpoint_is_wrong: bool, says: str
) -> None:
    hub.token = token
    repository = "nobody/nothing" if endpoint_is_wrong else "owner/tiny"
    with pytest.raises(CannotRun, match=says):
        model_folder(repository, COMMIT, layout=LAYOUT)


def test_a_token_opens_what_wants_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert HALF in names(fetch())


def test_the_disk_is_asked_before_anything_comes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "DISK_RESERVE_BYTES", 10**18)
    with pytest.raises(CannotRun, match="set REELFARM_MODELS to another disk"):
        fetch()
    assert hub.fetched == []


def test_a_repository_that_lacks_files_is_named_with_them(hub: Hub) -> None:
    (hub.folder / "unet" / "config.json").unlink()
    with pytest.raises(CannotRun, match=r"lacks unet/config\.json"):
        fetch()


@pytest.mark.slow
def test_the_hubs_own_variables_hold(tmp_path: Path) -> None:
    write_model(tmp_path / "published")
    with hub_over(tmp_path / "published") as hub:
        hub.token = "secret"
        folder = _said_by_a_process(tmp_path, "owner/tiny", HF_ENDPOINT=hub.url, HF_TOKEN="secret")
        assert names(Path(folder)) == {"model_index.json", "unet/config.json", HALF}
        hub.fetched.clear()
        assert _said_by_a_process(tmp_path, "owner/tiny", HF_HUB_OFFLINE="1") == folder
        assert hub.fetched == []
        by_proxy = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": hub.url, "HF_TOKEN": "secret"}
        assert names(Path(_said_by_a_process(tmp_path / "other", "owner/tiny", **by_proxy)))
        assert hub.proxied == {"http://hub.invalid", hub.content_url}
    said = _said_by_a_process(tmp_path, "nobody/nothing", HF_HUB_OFFLINE="1")
    assert said.startswith(f"cannot download nobody/nothing at {COMMIT}")
    assert "HF_HUB_OFFLINE" in said


def _said_by_a_process(home: Path, repository: str, **environment: str) -> str:
    """What ``model_folder`` says in a process of its own: the hub's settings are read at import."""
    code = (
        "from nodes.engines.folders import Layout, model_folder\n"
        "from farm.errors import CannotRun\n"
        f"layout = Layout({LAYOUT.family!r}, {dict(LAYOUT.weights)!r}, {LAYOUT.data!r})\n"
        f"try: print(model_folder({repository!r}, {COMMIT!r}, layout=layout))\n"
        "except CannotRun as error: print(error.message)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={
            **clean,
            "HF_HOME": str(home / "home"),
            "REELFARM_MODELS": str(home / "models"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **environment,
        },
    )
    return done.stdout.strip()


def test_a_hub_repository_without_a_pinned_revision_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expected the commit to pin"):
        model_folder("ali-vilab/i2vgen-xl", None, layout=LAYOUT)


def test_a_source_that_is_neither_folder_nor_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        model_folder(tmp_path / "nowhere", None, layout=LAYOUT)
