"""The middleware before every route: says who asks, refuses who may not, writes down what was changed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack

from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.access.audit import Audit, AuditEntry
from dashboard.access.decisions import Asked, Principal, asked, foreign, login_address, refusal
from dashboard.access.keys import Keys
from dashboard.access.limits import Buckets, Limits, Streams, body_cap, caller, is_stream, rate_class
from dashboard.access.sessions import Sessions
from dashboard.http import SECURITY_HEADERS, error_answer
from farm.errors import FarmError, TooLarge, TooManyRequests

_TOO_LARGE = "the body is larger than {} bytes, the most that is taken here"
_SILENT = "nothing of the body came for {:g} s; send the request again"
_TOO_SLOW = "the body comes slower than {:g} bytes a second; send the request again"
_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Gate:
    """Plain ASGI: bodies pass through as they come, in both directions.

    Routes find who asks as ``request.state.principal`` (None: nobody known, at an open address), and may set
    ``request.state.subject`` to what the audit log shall name.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        sessions: Sessions,
        audit: Audit,
        limits: Limits,
        allowed_hosts: Collection[str],
    ) -> None:
        self._app = app
        self._keys = keys
        self._sessions = sessions
        self._audit = audit
        self._buckets = Buckets(limits)
        self._limits = limits
        self._streams = Streams()
        self._allowed_hosts = frozenset(host.lower().strip("[]") for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # there are no websockets here
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = asked(scope)
        principal = self._principal(request)
        scope["state"] = {**scope.get("state", {}), "principal": principal}
        refused = self._refusal(request, principal)
        body = _Body(receive, self._limits, whole=not request.changes)
        answer = _Answer(send, body, lambda: self._principal(request) is None)
        held = ExitStack()
        try:
            if refused is None and is_stream(request.method, request.path):
                held.enter_context(self._streams.one_more(_who(request, principal)))
        except TooManyRequests as error:
            refused = error
        try:
            if refused is None:
                cap = body_cap(request.path, request.content_type)
                await self._app(scope, body if cap is None else _counted(body, cap), answer)
            else:
                await _refused(request, refused)(scope, body, answer)
        except Exception:
            answer.status = answer.status or 500
            raise
        finally:
            held.close()
            self._note(request, answer.status, scope["state"], refused)

    def _principal(self, request: Asked) -> Principal | None:
        if request.bearer is not None:
            return self._keys.find(request.bearer)
        return None if request.cookie is None else self._sessions.find(request.cookie)

    def _refusal(self, request: Asked, principal: Principal | None) -> FarmError | None:
        error = foreign(request, self._allowed_hosts)
        return (
            error
            or self._too_often(request, principal)
            or refusal(request, principal)
            or _too_long(request, body_cap(request.path, request.content_type))
        )

    def _too_often(self, request: Asked, principal: Principal | None) -> TooManyRequests | None:
        what = rate_class(request.method, request.path)
        if what is None:
            return None
        who = _who(request, None if what == "login" else principal)
        wait_s = self._buckets.wait_s(who, what, time.monotonic())
        if wait_s == 0 and what == "login":
            wait_s = self._buckets.wait_s("all", "login_of_all", time.monotonic())
        if wait_s == 0:
            return None
        return TooManyRequests(
            f"too many requests of the kind {what}; try again in {math.ceil(wait_s)} s", retry_after_s=wait_s
        )

    def _note(
        self, request: Asked, status: int | None, state: dict[str, object], refused: FarmError | None
    ) -> None:
        """Write down what changed something and what was refused, but only so many refusals a second."""
        if not request.changes and (refused is None or refused.http_status == 404 or status == 303):
            return
        # A login makes a principal of nobody.
        principal = state["principal"]
        assert principal is None or isinstance(principal, Principal)
        if refused is not None or (principal is None and (status or 0) >= 400):
            who = caller(request.address)
            if self._buckets.wait_s(who, "refusal", time.monotonic()) > 0:
                return
        entry: AuditEntry = {
            "at": time.time(),
            "principal": None if principal is None else principal.id,
            "name": None if principal is None else principal.name,
            "address": request.address,
            "method": request.method[:20],
            "path": request.path[:500],
            "status": status,
            "subject": None if state.get("subject") is None else str(state["subject"]),
        }
        self._audit.write(entry)


class _Body:
    """Passes a request's body on as long as it comes, and remembers whether all of it was read.

    Only what was waited for the client counts: a disk of ours that is slow is not the client's fault.
    """

    def __init__(self, receive: Receive, limits: Limits, *, whole: bool) -> None:
        self._receive = receive
        self._limits = limits
        self._waited_s = 0.0
        self._num_bytes = 0
        self.whole = whole

    async def __call__(self) -> Message:
        if self.whole:  # what comes now is that the client left, whenever that is
            return await self._receive()
        silence_s, pace = self._limits.body_silence_s, self._limits.body_pace
        began = time.monotonic()
        try:
            async with asyncio.timeout(silence_s):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, _SILENT.format(silence_s)) from None
        self._waited_s += time.monotonic() - began
        self._num_bytes += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        if not self.whole and self._waited_s > silence_s + self._num_bytes / pace:
            raise HTTPException(408, _TOO_SLOW.format(pace))
        return message


class _Answer:
    """Passes an answer on, with the headers every one has; ends an event stream with its key."""

    def __init__(self, send: Send, body: _Body, ended: Callable[[], bool]) -> None:
        self._send = send
        self._body = body
        self._ended = ended
        self._live = self._over = False
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            names = {name for name, _ in headers}
            self._live = any(
                name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
            )
            headers += [header for header in _RAW_HEADERS if header[0] not in names]
            if message["status"] >= 400 and not self._body.whole:
                # Else the server reads on for as long as somebody sends.
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif self._over:
            await asyncio.sleep(0)  # the server is telling the stream that nobody listens any more
            return
        elif self._live and self._ended():
            self._over = True
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)


def _who(request: Asked, principal: Principal | None) -> str:
    """Whom a request counts against."""
    return caller(request.address) if principal is None else principal.id


def _too_long(request: Asked, cap: int | None) -> TooLarge | None:
    if cap is None or request.content_length <= cap:
        return None
    return TooLarge(_TOO_LARGE.format(cap))


def _counted(receive: Receive, cap: int) -> Receive:
    """A request's body until it is longer than ``cap`` bytes."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > cap:
            # FastAPI lets this one through from where it reads a body.
            raise HTTPException(413, _TOO_LARGE.format(cap))
        return message

    return counted


def _refused(request: Asked, error: FarmError) -> Response:
    to_login = login_address(request) if error.http_status == 401 else None
    if to_login is not None:
        return RedirectResponse(to_login, 303)
    return error_answer(error)
