"""Who may enter: a bearer token where one is set, else this machine's own programs and pages only."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from farm.errors import NotAllowed

#: Need no access token. Joining and leaving have tokens of their own.
OPEN_PATHS = frozenset({"/api/v1/health", "/api/v1/join", "/api/v1/leave"})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Gate:
    """Middleware in front of every route.

    Without a token the server listens on loopback, and what can still reach it is a web page in this
    machine's browser: one that has rebound its name to 127.0.0.1 shows by its Host, one that posts from
    elsewhere by its Origin.
    """

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await refused(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if self._token is None:
            return _foreign_page(headers)
        if scope["path"] in OPEN_PATHS or _same(bearer_token(headers), self._token):
            return None
        error = NotAllowed("this farm wants its token; send it as `Authorization: Bearer <token>`")
        return JSONResponse(error.to_json(), error.http_status, {"WWW-Authenticate": "Bearer"})


def bearer_token(headers: Headers) -> str | None:
    """The token of an ``Authorization: Bearer`` header."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _same(given: str | None, wanted: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), wanted.encode())


def _foreign_page(headers: Headers) -> JSONResponse | None:
    hosts, origin = headers.getlist("host"), headers.get("origin")
    if len(hosts) != 1 or _hostname(f"//{hosts[0]}") not in _LOOPBACK:
        error = NotAllowed(
            f"host is {', '.join(hosts) or 'missing'}; without a token this farm answers to 127.0.0.1, "
            "localhost and [::1] only",
            param="host",
        )
    elif origin is not None and origin != f"http://{hosts[0]}":
        error = NotAllowed(f"origin is {origin}; pages of other sites may not use this farm", param="origin")
    else:
        return None
    return JSONResponse(error.to_json(), 403)


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
