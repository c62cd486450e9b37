"""The page that computes in the browser: as plain files, and with headers of its own on a farm."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from posixpath import dirname, join, normpath

import pytest

from dashboard.http.security_headers import ISOLATED, SECURITY_HEADERS
from dashboard.pages.exported import write_page
from dashboard.pages.routes import RUNTIME, static_files
from tests.dashboard.conftest import Farm
from tests.dashboard.pages.test_pages import Elements, page

#: Of modules that are imported by name, of workers, and of what is imported when it is chosen.
NAMED = re.compile(r'(?:from |import |new URL\(|(?:module|glue): )"(\.[\w./-]+\.js)"')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    built = tmp_path / "built"
    built.mkdir()
    (built / "manifest.json").write_text("{}")
    (built / "text-0123.onnx").write_bytes(b"weights")
    write_page(built, tmp_path / "site")
    return tmp_path / "site"


def test_everything_that_the_exported_page_names_lies_in_its_folder(folder: Path) -> None:
    html = (folder / "index.html").read_text()
    links = Elements(html).links()
    assert len(links) > 10
    for link in links:
        assert (folder / link).is_file(), link
        assert not link.startswith("/")
    scripts = list((folder / "static").rglob("*.js"))
    for script in scripts:
        for name in NAMED.findall(script.read_text()):
            assert normpath(join(dirname(str(script)), name)) in map(str, scripts), (script, name)
    for part in ("files/manifest.json", "files/text-0123.onnx", "static/vendor/ort.LICENSE", "README.txt"):
        assert (folder / part).is_file()
    assert "data-farm" not in html


def test_the_exported_page_forbids_itself_all_other_addresses(folder: Path) -> None:
    html = (folder / "index.html").read_text()
    (policy,) = (a["content"] for tag, a in Elements(html).found if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'self'")
    assert "'wasm-unsafe-eval'" in policy
    assert "unsafe-inline" not in policy
    assert "frame-ancestors" not in policy
    assert "cross-origin-embedder-policy: require-corp" in (folder / "_headers").read_text()


def test_written_again_it_holds_no_old_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "built" / "text-0123.onnx").rename(tmp_path / "built" / "text-4567.onnx")
    write_page(tmp_path / "built", folder)
    assert sorted(path.name for path in (folder / "files").glob("*.onnx")) == ["text-4567.onnx"]


def test_the_runtimes_are_the_ones_whose_hashes_the_page_knows() -> None:
    said = static_files()["js/try/runtimes.js"].content.decode()
    known = re.findall(r'name: "([\w.-]+)", bytes: (\d+), sha256: "(\w+)"', said)
    assert {name for name, _, _ in known} == {path.name for path in RUNTIME.iterdir()}
    for name, size, sha256 in known:
        packed = (RUNTIME / name).read_bytes()
        assert len(packed) == int(size)
        assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == sha256


@pytest.mark.asyncio(loop_scope="module")
async def test_only_the_page_that_computes_and_its_workers_are_isolated(shared_farm: Farm) -> None:
    for address, isolated in (
        ("/try", True),
        ("/static/x/js/try/worker.js", True),
        ("/static/x/vendor/ort-wasm.js", True),
        ("/static/x/js/parts.js", False),
        ("/jobs", False),
        ("/", False),
    ):
        headers = (await page(shared_farm, address)).headers
        for name in ("cross-origin-opener-policy", "cross-origin-embedder-policy"):
            assert headers.get(name) == (ISOLATED[name] if isolated else None), address
        wanted = ISOLATED if isolated else SECURITY_HEADERS
        assert headers["content-security-policy"] == wanted["content-security-policy"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_farm_serves_the_runtime_and_what_was_built_and_nothing_else(shared_farm: Farm) -> None:
    runtime = await shared_farm.http.get("/try/files/ort-wasm.wasm.gz")
    assert runtime.content == (RUNTIME / "ort-wasm.wasm.gz").read_bytes()
    assert "content-encoding" not in runtime.headers
    for name in ("manifest.json", "text-0123.onnx", "keys.sqlite", "ort.js", "..%2Fjournal.sqlite"):
        assert (await shared_farm.http.get(f"/try/files/{name}")).status_code == 404
