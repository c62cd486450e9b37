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

from dashboard.http import Route
from farm.errors import NotFound
from farm.version import VERSION

_HERE = Path(__file__).parent
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_TEMPLATES = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)
_FOR_EVER = "public, max-age=31536000, immutable"
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


PAGES = (
    Page("/", "submit", "New video", ("/api/v1/models", "/api/v1/presets")),
    Page("/jobs", "jobs", "Jobs", ("/api/v1/jobs?limit=50",)),
    Page("/jobs/{job_id}", "job", "Job", ("/api/v1/jobs/{job_id}", "/api/v1/jobs/{job_id}/timeline")),
    Page("/nodes", "nodes", "Nodes", ("/api/v1/nodes?limit=200",)),
    Page("/history", "history", "History", ("/api/v1/jobs?status=ended&limit=200",)),
    Page("/settings", "settings", "Settings"),
    Page("/login", "login", "Log in"),
)


@dataclass(frozen=True)
class StaticFile:
    content: bytes
    compressed: bytes
    media_type: str
    etag: str


def pages_router() -> APIRouter:
    """Every page and what it loads. No page holds data: what may be seen is for the API to say."""
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
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = file.content
        if "gzip" in request.headers.get("accept-encoding", ""):
            content = file.compressed
            headers["Content-Encoding"] = "gzip"
        return Response(content, media_type=file.media_type, headers=headers)

    for page in PAGES:
        _add(router, page, version, _modules(page.name))
    return router


def _add(router: APIRouter, page: Page, version: str, needed: list[str]) -> None:
    template = _TEMPLATES.get_template("login.html" if page.name == "login" else "page.html")

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
        return HTMLResponse(html, headers={"Cache-Control": "no-cache"})

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
