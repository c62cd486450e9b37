"""Routes of keys, sessions and the audit log."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from typing_extensions import TypedDict

from dashboard.access.audit import Audit, AuditEntry
from dashboard.access.decisions import COOKIE_NAME, Principal, Scope, asked
from dashboard.access.keys import Key, Keys
from dashboard.access.one_time_tokens import LOGIN_EXPIRY_S, OneTimeTokens
from dashboard.access.sessions import EXPIRY_S, Sessions
from dashboard.http import NO_KEY, answers, api_router
from farm.errors import NotAllowed
from farm.values import Value

MAX_KEY_S = 10 * 366 * 86400.0


class KeyRequest(Value):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=100, examples=["night renders"])
    scopes: list[Scope] = Field(min_length=1, examples=[["submit"]])
    expires_in_s: float | None = Field(None, gt=0, le=MAX_KEY_S, examples=[30 * 86400.0])


class LoginRequest(Value):
    """A key, the owner's token, or what stands in a login link."""

    key: str = Field(examples=["rf_3f9a1c07_4yJ0..."])


class KeySummary(TypedDict):
    id: str
    name: str
    #: As given: submit also reads, admin may do everything.
    scopes: list[Scope]
    created_at: float
    #: None: it does not expire.
    expires_at: float | None
    #: To the minute; None: never.
    last_used_at: float | None
    revoked_at: float | None


class NewKey(KeySummary):
    #: Shown this once; only its hash is kept.
    key: str


class KeyList(TypedDict):
    data: list[KeySummary]
    next_cursor: str | None


class AuditList(TypedDict):
    data: list[AuditEntry]
    next_cursor: str | None


class PrincipalSummary(TypedDict):
    id: str
    name: str


class SessionSummary(TypedDict):
    #: None: not logged in.
    principal: PrincipalSummary | None
    #: Everything that is allowed.
    scopes: list[Scope]


class LoginLink(TypedDict):
    #: Path and fragment, to go behind the farm's address. Works once.
    path: str
    expires_in_s: float


_KEY = {
    "id": "3f9a1c07",
    "name": "night renders",
    "scopes": ["submit"],
    "created_at": 1790000000.0,
    "expires_at": 1792592000.0,
    "last_used_at": None,
    "revoked_at": None,
}
_SESSION = {
    "principal": {"id": "3f9a1c07", "name": "night renders"},
    "scopes": ["read", "submit"],
}
_ENTRY = {
    "at": 1790000000.0,
    "principal": "owner",
    "name": "owner",
    "address": "192.168.1.20",
    "method": "POST",
    "path": "/api/v1/keys",
    "status": 201,
    "subject": "3f9a1c07",
}


def login_link(login_links: OneTimeTokens, principal_id: str) -> str:
    """The path of a page that logs a browser in, once. A fragment is sent to no server, and in no Referer."""
    return f"/login#key={login_links.create(principal_id)}"


def access_router(keys: Keys, sessions: Sessions, login_links: OneTimeTokens, audit: Audit) -> APIRouter:
    """Routes under which keys are made and revoked, and browsers come in."""
    router = api_router("access")

    @router.post(
        "/keys",
        status_code=201,
        summary="Make a key",
        responses=answers({**_KEY, "key": "rf_3f9a1c07_4yJ0..."}, status=201, said="The key, this once."),
    )
    async def create_key(wanted: KeyRequest, request: Request, response: Response) -> NewKey:
        """A key for a program or a person. Scopes: `read` sees everything but keys, webhooks and the audit
        log; `submit` also uploads, starts and changes jobs; `node` lets machines in; `admin` does everything.
        """
        name = "".join(c if c.isprintable() else "?" for c in wanted.name)
        key, text = keys.create(name, wanted.scopes, wanted.expires_in_s)
        request.state.subject = key.id
        response.headers["Cache-Control"] = "no-store"
        return {**_summary(key), "key": text}

    @router.get(
        "/keys",
        summary="List the keys",
        responses=answers({"data": [_KEY], "next_cursor": None}, said="All of them."),
    )
    async def list_keys() -> KeyList:
        """Every key there was, the newest first; the keys themselves are not known any more."""
        return {"data": [_summary(key) for key in keys.all()], "next_cursor": None}

    @router.delete(
        "/keys/{key_id}",
        status_code=204,
        summary="Revoke a key",
        responses=answers(status=204, said="Revoked.", errors={404: "There is no such key that works."}),
    )
    async def revoke_key(key_id: str) -> None:
        """End a key at once, with all its sessions and open event streams."""
        keys.revoke(key_id)

    @router.post(
        "/login-links",
        status_code=201,
        summary="Make a login link",
        responses=answers(
            {"path": "/login#key=mZ1v…", "expires_in_s": LOGIN_EXPIRY_S},
            status=201,
            said="The link, this once.",
        ),
    )
    async def make_login_link(request: Request, response: Response) -> LoginLink:
        """A link that logs one browser in as whoever asks, once and within an hour."""
        response.headers["Cache-Control"] = "no-store"
        return {"path": login_link(login_links, request.state.principal.id), "expires_in_s": LOGIN_EXPIRY_S}

    @router.get(
        "/audit",
        summary="Read the audit log",
        responses=answers({"data": [_ENTRY], "next_cursor": None}, said="The newest first."),
    )
    async def audit_log(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> AuditList:
        """The last requests that changed something, came in, or were refused."""
        return {"data": await asyncio.to_thread(audit.newest, limit), "next_cursor": None}

    @router.post(
        "/session",
        summary="Log in",
        openapi_extra=NO_KEY,
        responses=answers(_SESSION, said="Logged in; the cookie `reelfarm_session` is set."),
    )
    async def log_in(wanted: LoginRequest, request: Request, response: Response) -> SessionSummary:
        """A session for a browser, for two weeks or as long as its key works."""
        given = wanted.key.strip()
        principal = keys.find(given) or keys.principal(login_links.redeem(given) or "")
        if principal is None:
            raise NotAllowed(
                "the key is wrong, revoked or too old, or the login link was used; `farm login` prints a "
                "new link, and an admin makes new keys",
                param="key",
            )
        how = asked(request.scope)
        if how.cookie is not None:
            sessions.end(how.cookie)
        response.set_cookie(
            COOKIE_NAME,
            sessions.start(principal.id),
            max_age=int(EXPIRY_S),
            httponly=True,
            samesite="strict",
            # The browser's own word where TLS ends at a proxy before us; the gate has checked it.
            secure="https" in (how.scheme, (how.origin or "").partition(":")[0]),
        )
        response.headers["Cache-Control"] = "no-store"
        request.state.principal = principal
        return session_of(request)

    @router.get(
        "/session",
        summary="Who am I",
        openapi_extra=NO_KEY,
        responses=answers(_SESSION, said="Who asks, and what they may do."),
    )
    async def session(request: Request, response: Response) -> SessionSummary:
        """Whoever sends this request, as the farm knows them."""
        response.headers["Cache-Control"] = "no-store"
        return session_of(request)

    @router.delete(
        "/session",
        status_code=204,
        summary="Log out",
        openapi_extra=NO_KEY,
        responses=answers(status=204, said="Logged out, or was not logged in."),
    )
    async def log_out(request: Request, response: Response) -> None:
        """End the session of the cookie; nobody can use it any more."""
        cookie = asked(request.scope).cookie
        if cookie is not None:
            sessions.end(cookie)
        response.delete_cookie(COOKIE_NAME, httponly=True, samesite="strict")

    def session_of(request: Request) -> SessionSummary:
        principal: Principal | None = request.state.principal
        return {
            "principal": None if principal is None else {"id": principal.id, "name": principal.name},
            "scopes": [] if principal is None else sorted(principal.scopes),
        }

    return router


def _summary(key: Key) -> KeySummary:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }
