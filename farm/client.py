"""A running farm over HTTP, for the command line and for Python."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from farm import outputs
from farm.connection import Connection, bearer
from farm.endpoint import endpoint_at, read_endpoint
from farm.errors import CannotRun
from farm.request import model_here
from farm.state import default_state_folder

#: Lost event streams in a row, without an event between them, before the client gives up.
MAX_RECONNECTS = 5
RECONNECT_S, RECONNECT_AT_MOST_S = 0.2, 3.0
#: A plan of very many segments is one event.
MAX_EVENT_BYTES = 256 << 20
#: Entries of a list fetched at a time.
PAGE_LIMIT = 200


class FarmClient(Connection):
    """Calls of one farm. What the farm refuses is raised as the error class it has there.

    Raises, in every method:
        CannotRun: no farm answers at the URL.
        NotAllowed: the farm wants another token.
    """

    def is_up(self) -> bool:
        """Whether a farm answers at the URL; its token is not tried."""
        try:
            return bool(self._object("GET", "health")["status"] == "ok")
        except CannotRun:
            return False

    def submit(
        self, paths: Sequence[Path], options: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Start a job. Returns its summary.

        Args:
            options: the fields of ``JobRequest`` but ``inputs``, ``preset``, ``clip``; ``audio`` and ``mask``
                are paths, ``references`` several.
            idempotency_key: however often a submit with this key is sent, it starts one job.
        """
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._upload("jobs", paths, options, headers=headers)

    def plan(self, paths: Sequence[Path], options: Mapping[str, Any]) -> dict[str, Any]:
        """What ``submit`` would do: ``plan``, the JSON of a ``Plan``, and ``quote``, time and price."""
        return self._upload("plans", paths, options)

    def jobs(self) -> Iterator[dict[str, Any]]:
        """Summaries, the newest job first; fetched by the page as they are taken."""
        yield from self._paged("jobs")

    def job(self, job_id: str) -> dict[str, Any]:
        return self._object("GET", _job(job_id))

    def report(self, job_id: str) -> dict[str, Any]:
        return self._object("GET", _job(job_id) + "/report")

    def cancel(self, job_id: str) -> dict[str, Any]:
        return self._object("POST", _job(job_id) + "/cancel")

    def retry(self, job_id: str) -> dict[str, Any]:
        return self._object("POST", _job(job_id) + "/retry")

    def prioritize(self, job_id: str, priority: int) -> dict[str, Any]:
        """Serve a running job sooner or later; ``priority`` is 0 to 100, higher first. Its summary."""
        return self._object("POST", _job(job_id) + "/priority", json={"priority": priority})

    def rerender(self, job_id: str, start: int, end: int) -> list[str]:
        """Render the segments of frames [start, end) again. Returns their ids."""
        frames = {"start": start, "end": end}
        segments: list[str] = self._object("POST", _job(job_id) + "/rerender", json=frames)["segments"]
        return segments

    def keyframes(self, job_id: str) -> list[dict[str, Any]]:
        """A job's keyframes, in the order of the video."""
        return list(self._paged(_job(job_id) + "/keyframes"))

    def keyframe_picture(self, job_id: str, number: int, side: int) -> bytes:
        """A keyframe as WebP, its longest side at most so many pixels."""
        where = self._address(f"{_keyframe(job_id, number)}/picture")
        with self._reaching():
            answer = self._http.get(where, params={"side": side})
        self._check(answer)
        return bytes(answer.content)

    def remake_keyframe(self, job_id: str, number: int, seed: int | None = None) -> None:
        """Make a keyframe again, and those that ``keyframes`` names with it."""
        self._call("POST", _keyframe(job_id, number) + "/remake", json={"seed": seed})

    def replace_keyframe(self, job_id: str, number: int, path: Path) -> list[str]:
        """Let a picture stand for a keyframe. Returns what is changed of it."""
        where = _keyframe(job_id, number) + "/picture"
        notes: list[str] = self._send(where, [("picture", path)], method="PUT")["notes"]
        return notes

    def take_back_keyframe(self, job_id: str, number: int) -> None:
        """Let what was rendered for a keyframe count again."""
        self._call("DELETE", _keyframe(job_id, number) + "/picture")

    def approve(self, job_id: str) -> dict[str, Any]:
        """Let the windows of a job be rendered. Its summary."""
        return self._object("POST", _job(job_id) + "/approve")

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended, with its files."""
        self._call("DELETE", _job(job_id))

    def nodes(self) -> list[dict[str, Any]]:
        """Every machine with its workers."""
        return list(self._paged("nodes"))

    def models_runnable(self, names: Sequence[str] = ()) -> list[Any]:
        """What the farm can run of these models, by name or folder; without names of all it knows."""
        asked: list[dict[str, str]] = [{"model": name} for name in names] or [{}]
        return [
            each for params in asked for each in self._object("GET", "models/runnable", params=params)["data"]
        ]

    def accept_licence(self, model: str) -> dict[str, Any]:
        """Accept the licence of a model, by name, once for the whole farm. The model as it is listed."""
        return self._object("POST", "models/licences", json={"model": model})

    def storage(self) -> dict[str, Any]:
        """What lies in the farm's storage, by what its journal knows of it."""
        return self._object("GET", "storage")

    def remove_unknown(self) -> dict[str, Any]:
        """Remove from the storage what the journal does not know; what is left."""
        return self._object("DELETE", "storage/unknown")

    def drain(self, name: str) -> None:
        """Let a node, or one worker of it (``node/slot``), finish what it has and rest until ``enable``."""
        self._call("POST", _node(name) + "/drain")

    def enable(self, name: str) -> None:
        """Let a drained node, or worker, come back."""
        self._call("POST", _node(name) + "/enable")

    def remove_node(self, node: str) -> dict[str, Any]:
        """Take a machine out for cause; tells which keys were revoked with it."""
        return self._object("DELETE", _node(node))

    def join_token(self) -> str:
        """A fresh one-time token for one machine."""
        token: str = self._object("POST", "join-tokens")["token"]
        return token

    def keys(self) -> list[dict[str, Any]]:
        """Every API key there was, the newest first; the keys themselves are not kept."""
        found: list[dict[str, Any]] = self._object("GET", "keys")["data"]
        return found

    def create_key(
        self, name: str, scopes: Sequence[str], expires_in_s: float | None = None
    ) -> dict[str, Any]:
        """A fresh API key, as ``key``, and all that ``keys`` tells about it."""
        wanted = {"name": name, "scopes": list(scopes), "expires_in_s": expires_in_s}
        return self._object("POST", "keys", json=wanted)

    def revoke_key(self, key_id: str) -> None:
        """End a key at once, with its sessions."""
        self._call("DELETE", f"keys/{_part(key_id)}")

    def login_link(self, pages: str | None = None) -> str:
        """An address that logs one browser in as whoever asks, once and within an hour.

        ``pages``: the URL at which that browser finds the farm, where it is another than ours.
        """
        path: str = self._object("POST", "login-links")["path"]
        return f"{(pages or self.url).rstrip('/')}{path}"

    def reach(self, ports: Sequence[int], word: str) -> dict[str, Any]:
        """Have the farm connect to these ports of this machine, and read ``word`` there, which is in hex.

        Returns ``address``, this machine's as the farm sees it, ``unreached`` of the ports, and of the farm's
        machine ``listening``, the ports to be reached, and ``ports``, the whole range.
        """
        return self._object("POST", "join/reach", json={"ports": list(ports), "word": word})

    def join(self, token: str, node: str) -> dict[str, Any]:
        """What this machine needs to join under the name ``node``; uses a join token up, a node's own not."""
        return self._object("POST", "join", json={"node": node}, headers=bearer(token))

    def leave(self, node: str, node_token: str) -> list[str]:
        """Drain this machine; returns its workers that are still at a segment."""
        left: list[str] = self._object("POST", "leave", json={"node": node}, headers=bearer(node_token))[
            "workers"
        ]
        return left

    def events(
        self, job_id: str, *, after: int = 0, lost: Callable[[str], None] | None = None
    ) -> Iterator[tuple[int | None, dict[str, Any]]]:
        """A job's events until it has ended, as (sequence number, event).

        The event is the JSON of a ``farm.state.Event`` with its time as ``at``; ``progress`` events have no
        number. A lost connection is taken up where it broke off.

        Args:
            job_id: Of the job.
            after: Sequence number of an event; those past it are told.
            lost: Is told why when the farm does not answer any more, and ``""`` when it does again; it is
                waited for as long as it takes. None: for a few seconds.

        Raises:
            CannotRun: the connection was lost too often.
        """
        tries, missed = 0, False
        while True:
            try:
                for name, seq, event in self._stream(job_id, after):
                    if missed and lost:
                        lost("")
                    tries, missed = 0, False
                    if name == "end":
                        return
                    after = after if seq is None else seq
                    yield seq, event
                raise httpx2.ReadError("the stream ended before the job")
            except httpx2.TransportError as error:
                unreached = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                if unreached and tries == 0 and lost is None:
                    raise self._silent() from error
                reason = error
            tries += 1
            if lost is None and tries > MAX_RECONNECTS:
                raise CannotRun(f"the farm at {self.url} was lost {tries} times: {reason}") from reason
            # One that comes back at once was only asked too late.
            if lost and tries == 2:
                missed = True
                lost(f"the farm at {self.url} does not answer")
            time.sleep(min(RECONNECT_S * 2 ** (tries - 1), RECONNECT_AT_MOST_S))

    def download(self, job_id: str, name: str, path: Path, *, replace: bool = False) -> Path:
        """Bring a job's artifact, such as ``video.mp4``, to ``path``, whole or not at all.

        Returns where it is: without ``replace`` a file that is there stays, and the name is numbered.

        Raises:
            NotFound: there is no such job or artifact, or (NotReady) it is not there yet.
            CannotRun: the connection was lost, or the file cannot be written.
        """
        temporary: Path | None = None
        try:
            with (
                self._reaching(),
                self._http.stream("GET", self._address(f"{_job(job_id)}/artifacts/{_part(name)}")) as answer,
            ):
                self._check(answer)
                handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
                temporary = Path(name)
                with os.fdopen(handle, "wb") as file:
                    file.writelines(answer.iter_bytes(1 << 20))
            temporary.chmod(0o644)
            return outputs.put(temporary, path, replace=replace)
        except OSError as error:
            raise CannotRun(f"{path} cannot be written ({error.strerror}); choose another place") from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def _upload(
        self,
        where: str,
        paths: Sequence[Path],
        options: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        options = dict(options)
        # A farm elsewhere on this machine knows no folder by its place below ours.
        for name in ("model", "draft_model"):
            if options.get(name) is not None:
                options[name] = model_here(options[name])
        for name in ("audio", "mask"):
            if options.get(name) is not None:
                options[name] = self._kept(options[name])
        if options.get("references"):
            options["references"] = [self._kept(path) for path in options["references"]]
        # A Fraction (fps) goes as text, such as 30000/1001.
        text = json.dumps(options, default=str)
        if paths:
            return self._send(where, [("inputs", path) for path in paths], {"request": text}, headers)
        return self._send_json(where, text, headers)

    def _kept(self, path: Path) -> str:
        """The id of a file that the farm has taken in."""
        upload_id: str = self._send("uploads", [("file", path)])["id"]
        return upload_id

    def _paged(self, path: str) -> Iterator[Any]:
        """The entries of a list, fetched by the page as they are taken."""
        cursor: str | None = None
        while True:
            wanted = {"limit": PAGE_LIMIT} | ({} if cursor is None else {"cursor": cursor})
            page = self._object("GET", path, params=wanted)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _stream(self, job_id: str, after: int) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
        headers = {"Last-Event-ID": str(after)}
        with self._http.stream("GET", self._address(f"{_job(job_id)}/events"), headers=headers) as answer:
            self._check(answer)
            for event in httpx2.EventSource(answer, max_event_size=MAX_EVENT_BYTES):
                seq = None if event.event in ("progress", "end") else int(event.id)
                yield event.event, seq, json.loads(event.data)


def find_farm(
    url: str | None = None, token: str | None = None, state: Path | None = None
) -> FarmClient | None:
    """The farm that is meant: the one at ``url``, else the one of the state folder when it is up.

    The token of a farm of this user's own on this machine is known.

    Raises:
        InvalidInput: ``url`` is none.
        CannotRun: somebody else answers where that farm was.
    """
    if url is not None:
        known = endpoint_at(url) if token is None else None
        return FarmClient(url, token if known is None else known.token)
    endpoint = read_endpoint(state or default_state_folder())
    if endpoint is None:
        return None
    client = FarmClient(endpoint.url, token or endpoint.token)
    return client if client.is_up() else None


def _part(name: str) -> str:
    """A name as one part of an address."""
    return quote(name, safe="")


def _job(job_id: str) -> str:
    return f"jobs/{_part(job_id)}"


def _keyframe(job_id: str, number: int) -> str:
    return f"{_job(job_id)}/keyframes/{number}"


def _node(name: str) -> str:
    node, _, slot = name.partition("/")
    return f"nodes/{_part(node)}" + (f"/workers/{_part(slot)}" if slot else "")
