from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.errors import InvalidInput
from nodes.engines.folders.download import model_folder
from nodes.engines.i2vgen_xl.layout import LAYOUT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Mirror(http.server.ThreadingHTTPServer):
    """The part of the hub's HTTP interface that a snapshot download uses, over a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Mirror

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        folder = self.server.folder
        kind = "application/octet-stream"
        if self.path.startswith(f"/api/models/owner/tiny/tree/{COMMIT}"):
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            tree = [
                {
                    "type": "file",
                    "path": path.relative_to(folder).as_posix(),
                    "size": path.stat().st_size,
                    "oid": COMMIT,
                }
                for path in files
            ]
            content, kind = json.dumps(tree).encode(), "application/json"
        elif self.path.startswith(f"/owner/tiny/resolve/{COMMIT}/"):
            name = self.path.split(f"{COMMIT}/")[1]
            content = (folder / name).read_bytes()
            self.server.fetched.append(name)
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def mirror(tiny_i2vgen_xl_folder: Path) -> Iterator[_Mirror]:
    server = _Mirror(tiny_i2vgen_xl_folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _download(home: Path, repository: str, **environment: str) -> str:
    """What ``model_folder`` says in a process of its own: the hub's settings are read at import."""
    code = (
        "from nodes.engines.folders import model_folder\n"
        "from nodes.engines.i2vgen_xl.layout import LAYOUT\n"
        "from farm.errors import CannotRun\n"
        f"try: print(model_folder({repository!r}, {COMMIT!r}, layout=LAYOUT))\n"
        "except CannotRun as error: print(error.message)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**clean, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
    )
    return done.stdout.strip()


def test_a_pinned_repository_comes_from_the_mirror_once_and_then_from_the_cache(
    mirror: _Mirror, tmp_path: Path, tiny_i2vgen_xl_folder: Path
) -> None:
    pickle = tiny_i2vgen_xl_folder / "unet" / "diffusion_pytorch_model.bin"
    code = tiny_i2vgen_xl_folder / "pipeline.py"
    pickle.write_bytes(b"pickle")
    code.write_text("print('remote code')")
    try:
        folder = Path(_download(tmp_path, "owner/tiny", HF_ENDPOINT=mirror.url))
    finally:
        pickle.unlink()
        code.unlink()
    unet = "unet/diffusion_pytorch_model.fp16.safetensors"
    assert (folder / unet).read_bytes() == (tiny_i2vgen_xl_folder / unet).read_bytes()
    assert {Path(name).suffix for name in mirror.fetched} == {".json", ".txt", ".safetensors"}
    assert not (folder / "unet" / "diffusion_pytorch_model.safetensors").exists()
    mirror.fetched.clear()
    assert _download(tmp_path, "owner/tiny", HF_HUB_OFFLINE="1") == str(folder)
    assert mirror.fetched == []


def test_weights_that_exist_in_one_precision_only_come_in_that_one(
    mirror: _Mirror, tmp_path: Path, tiny_i2vgen_xl_folder: Path
) -> None:
    mirror.folder = tmp_path / "plain"
    shutil.copytree(tiny_i2vgen_xl_folder, mirror.folder, ignore=shutil.ignore_patterns("*.fp16.*"))
    folder = Path(_download(tmp_path, "owner/tiny", HF_ENDPOINT=mirror.url))
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").exists()


@pytest.mark.torch
def test_offline_a_repository_that_was_never_downloaded_is_refused_with_what_to_do(tmp_path: Path) -> None:
    said = _download(tmp_path, "nobody/nothing", HF_HUB_OFFLINE="1")
    assert said.startswith(f"cannot download nobody/nothing at {COMMIT}")
    assert "HF_HUB_OFFLINE" in said


def test_a_hub_repository_without_a_pinned_revision_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expected the commit to pin"):
        model_folder("ali-vilab/i2vgen-xl", None, layout=LAYOUT)


def test_a_source_that_is_neither_folder_nor_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        model_folder(tmp_path / "nowhere", None, layout=LAYOUT)
