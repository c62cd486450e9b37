"""The pages: HTML shells, and the static files that fill them from the API.

Everything is read once, when the first router is made. Static files have the hash of all of them in their
address, so that a browser keeps them for good and a new version of the farm is seen at once.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader

from dashboard.files import open_file
from dashboard.http import ISOLATED, Route
from farm.errors import NotFound
from farm.version import VERSION

_HERE = Path(__file__).parent
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
TEMPLATES = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)
_FOR_EVER = "public, max-age=31536000, immutable"
_FOR_EVER_HERE = "private, max-age=31536000, immutable"
_IMPORT = re.compile(r'(?:from|import)\s*"(\.[\w./-]+\.js)"')


@dataclass(frozen=True)
class Page:
    """One address and the module that fills it."""

    path: str
    #: Of ``static/js/pages/<name>.js``; also which entry of the navigation is the current one.
    name: str
    title: str
    #: What the module asks the API for first, so that the browser can ask before it has read the module.
    first_reads: tuple[str, ...] = ()
    template: str = "page.html"
    #: Whether it computes here: see ``ISOLATED``.
    isolated: bool = False


TRY = Page("/try", "try", "Try it in this browser", template="try.html", isolated=True)
PAGES = (
    Page("/", "submit", "New video", ("/api/v1/models", "/api/v1/presets")),
    Page("/jobs", "jobs", "Jobs", ("/api/v1/jobs?limit=50",)),
    Page("/jobs/{job_id}", "job", "Job", ("/api/v1/jobs/{job_id}", "/api/v1/jobs/{job_id}/timeline")),
    Page("/nodes", "nodes", "Nodes", ("/api/v1/nodes?limit=200",)),
    Page("/history", "history", "History", ("/api/v1/jobs?status=ended&limit=200",)),
    Page("/settings", "settings", "Settings"),
    TRY,
    Page("/login", "login", "Log in", template="login.html"),
)
#: What the isolated page's workers are made of: they have headers of their own.
_IN_WORKERS = ("js/try/", "vendor/ort")
#: ONNX Runtime's WebAssembly, packed: too large to lie in memory beside the pages.
RUNTIME = _HERE / "runtime"
_FILE_OF_TRY = re.compile(r"[a-z][a-z0-9-]*\.(?:onnx|json|wasm\.gz)")


@dataclass(frozen=True)
class StaticFile:
    content: bytes
    compressed: bytes
    media_type: str
    etag: str


def pages_router(built: Path) -> APIRouter:
    """Every page and what it loads. No page holds data: what may be seen is for the API to say.

    ``built``: where ``farm export-page`` writes the model that browsers compute with.
    """
    router = APIRouter(include_in_schema=False, route_class=Route)
    files = static_files()
    version = _version(files)

    @router.api_route("/static/{asked_version}/{name:path}", methods=["GET", "HEAD"])
    async def static(request: Request, asked_version: str, name: str) -> Response:
        if name not in files:
            raise NotFound(f"there is no file {name}")
        file = files[name]
        # A page opened before an update asks for the old version: it gets this one, and does not keep it.
        keep = _FOR_EVER if asked_version == version else "no-cache"
        headers = {"ETag": file.etag, "Cache-Control": keep, "Vary": "Accept-Encoding"}
        if name.startswith(_IN_WORKERS):
            headers |= ISOLATED
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = file.content
        if "gzip" in request.headers.get("accept-encoding", ""):
            content = file.compressed
            headers["Content-Encoding"] = "gzip"
        return Response(content, media_type=file.media_type, headers=headers)

    @router.api_route("/try/files/{name}", methods=["GET", "HEAD"])
    async def file_of_try(name: str) -> Response:
        if not _FILE_OF_TRY.fullmatch(name):
            raise NotFound(f"there is no file {name}")
        path = (RUNTIME if name.endswith(".gz") else built) / name
        # Names of what is built carry its hash.
        keep = {} if path.parent == RUNTIME or name == "manifest.json" else {"cache-control": _FOR_EVER_HERE}
        media_type = "application/json" if name.endswith(".json") else "application/octet-stream"
        return await open_file(path, media_type=media_type, name=name, headers=keep)

    for page in PAGES:
        _add(router, page, version, _modules(page.name))
    return router


def _add(router: APIRouter, page: Page, version: str, needed: list[str]) -> None:
    template = TEMPLATES.get_template(page.template)
    headers = {"Cache-Control": "no-cache", **(ISOLATED if page.isolated else {})}

    async def shell(request: Request) -> HTMLResponse:
        parameters = {name: quote(value, safe="") for name, value in request.path_params.items()}
        html = template.render(
            page=page,
            farm_version=VERSION,
            static=f"/static/{version}",
            modules=needed,
            # With a query of its own a page asks for something else.
            first_reads=[]
            if request.url.query
            else [address.format(**parameters) for address in page.first_reads],
        )
        return HTMLResponse(html, headers=headers)

    router.add_api_route(page.path, shell, methods=["GET", "HEAD"], name=f"page-{page.name}")


@cache
def static_files() -> dict[str, StaticFile]:
    """What browsers load, by the name under ``static/``; read once."""
    root = _HERE / "static"
    files = {}
    for path in sorted(root.rglob("*")):
        if path.suffix in _MEDIA_TYPES:
            content = path.read_bytes()
            files[path.relative_to(root).as_posix()] = StaticFile(
                content=content,
                compressed=gzip.compress(content, mtime=0),
                media_type=_MEDIA_TYPES[path.suffix],
                etag=f'"{hashlib.sha256(content).hexdigest()[:16]}"',
            )
    return files


@cache
def _modules(page: str) -> list[str]:
    return modules(static_files(), f"js/pages/{page}.js")


def modules(files: dict[str, StaticFile], first: str) -> list[str]:
    """A module and all it imports, directly or not: asked for at once instead of one after the other."""
    found, waiting = [first], [first]
    while waiting:
        importer = waiting.pop()
        for relative in _IMPORT.findall(files[importer].content.decode()):
            name = normpath(join(dirname(importer), relative))
            if name in files and name not in found:
                found.append(name)
                waiting.append(name)
    return found


def _version(files: dict[str, StaticFile]) -> str:
    every = "".join(f"{name}{file.etag}" for name, file in files.items())
    return hashlib.sha256(every.encode()).hexdigest()[:12]
