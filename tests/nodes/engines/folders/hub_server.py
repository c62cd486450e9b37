"""A small hub: the paths, headers and moods of huggingface.co that a fetch meets, over a folder."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Serves ``folder`` as repository "owner/tiny", whose only commit is ``COMMIT``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        #: Who asks without it is sent away; None: nobody is.
        self.token: str | None = None
        #: So many downloads are answered with 429 before one is given.
        self.busy_times = 0
        #: So many downloads of large files are broken off in their middle.
        self.breaks = 0
        #: Large files, by name, whose bytes are changed on their way so many times.
        self.tampered: dict[str, int] = {}
        #: Of which hosts it was asked as a proxy.
        self.proxied: set[str] = set()
        #: (path, "Range" header) of every download.
        self.fetched: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def content_url(self) -> str:
        """Where large files are: another host to a client, as the hub's content network is."""
        return f"http://localhost:{self.server_address[1]}"

    def is_large(self, path: Path) -> bool:
        """Whether the hub would keep it outside of git."""
        return path.suffix in (".safetensors", ".bin")


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def _answer(self, *, head: bool) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        if found := re.match(r"http://[^/]+(?=/)", path):  # as a proxy is asked
            hub.proxied.add(found[0])
            path = path[found.end() :]
        shown = self.headers.get("Authorization")
        if "/cdn/" in path and shown is not None:
            self._send(400, b"a token is shown to a host that it is not for", {})
        elif hub.token and shown != f"Bearer {hub.token}" and "/cdn/" not in path:
            self._send(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "restricted"})
        elif path == "/api/models/owner/tiny/revision/main":
            self._json({"id": "owner/tiny", "sha": COMMIT})
        elif path == f"/api/models/owner/tiny/tree/{COMMIT}":
            self._json([_entry(hub, file) for file in sorted(hub.folder.rglob("*")) if file.is_file()])
        elif found := re.fullmatch(rf"/owner/tiny/resolve/{COMMIT}/(.+)", path):
            self._resolve(found[1], head=head)
        elif found := re.fullmatch(r"/cdn/(.+)", path):
            self._give(found[1])
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _resolve(self, name: str, *, head: bool) -> None:
        hub, file = self.server, self.server.folder / name
        content = file.read_bytes()
        if hub.is_large(file):
            linked = {
                "Location": f"{hub.content_url}/cdn/{name}",
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
                "X-Repo-Commit": COMMIT,
            }
            self._send(302, b"", linked)
            return
        if not head:
            hub.fetched.append((name, self.headers.get("Range")))
        known = {"ETag": f'"{_git_oid(content)}"', "X-Repo-Commit": COMMIT}
        self._send(200, content, known, head=head)

    def _give(self, name: str) -> None:
        """A large file, or what is left of it; as the hub's content network does."""
        hub, asked = self.server, self.headers.get("Range")
        hub.fetched.append((name, asked))
        if hub.busy_times:
            hub.busy_times -= 1
            self._send(429, b"", {"Retry-After": "0"})
            return
        content = (hub.folder / name).read_bytes()
        if hub.tampered.get(name):
            hub.tampered[name] -= 1
            content = bytes(len(content))
        begin = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        part = content[begin:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if hub.breaks:
            hub.breaks -= 1
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(part)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, head: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not head and self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


def _entry(hub: Hub, file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    entry = {
        "type": "file",
        "path": file.relative_to(hub.folder).as_posix(),
        "size": len(content),
        "oid": _git_oid(content),
    }
    if hub.is_large(file):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return entry


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub_over(folder: Path) -> Iterator[Hub]:
    """A hub that serves a folder until the block ends."""
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
