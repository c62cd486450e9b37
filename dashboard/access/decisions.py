"""Who may do what here, and from which pages: values in, decisions out. ``Gate`` acts on them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import quote

from starlette.datastructures import Headers

from farm.errors import KEY_PARAM, FarmError, Forbidden, NotAllowed, NotFound

Scope = Literal["read", "submit", "node", "admin"]
#: What an address wants: a scope, or nothing.
Need = Literal["open", "read", "submit", "node", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
#: scope -> what its holder may do. Who may start a job may see what becomes of it.
GRANTS: Mapping[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "submit": frozenset({"read", "submit"}),
    "node": frozenset({"node"}),
    "admin": frozenset(SCOPES),
}

#: area of addresses -> (what looking wants, what changing wants). Outside of every area there is no address.
AREAS: Mapping[str, tuple[Need, Need]] = {
    # Joining and leaving machines have tokens of their own, and a session is how a page gets in.
    "/api/v1/health": ("open", "open"),
    "/api/v1/join": ("open", "open"),
    "/api/v1/leave": ("open", "open"),
    "/api/v1/session": ("open", "open"),
    "/login": ("open", "open"),
    "/static": ("open", "open"),
    "/api/v1/jobs": ("read", "submit"),
    "/api/v1/plans": ("read", "submit"),
    "/api/v1/uploads": ("read", "submit"),
    "/v1/videos": ("read", "submit"),
    "/v1/models": ("read", "admin"),
    "/api/v1/events": ("read", "admin"),
    "/api/v1/models": ("read", "admin"),
    "/api/v1/nodes": ("read", "admin"),
    "/api/v1/openapi.json": ("read", "admin"),
    "/api/v1/presets": ("read", "admin"),
    "/api/v1/storage": ("read", "admin"),
    "/api/v1/workers": ("read", "admin"),
    "/metrics": ("read", "admin"),
    "/": ("read", "admin"),
    "/jobs": ("read", "admin"),
    "/nodes": ("read", "admin"),
    "/history": ("read", "admin"),
    "/settings": ("read", "admin"),
    "/try": ("read", "admin"),
    "/api/v1/join-tokens": ("node", "node"),
    "/api/v1/audit": ("admin", "admin"),
    "/api/v1/keys": ("admin", "admin"),
    "/api/v1/login-links": ("admin", "admin"),
    "/api/v1/webhooks": ("admin", "admin"),
}
_DOORS = ("/api", "/v1", "/metrics", "/static")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

COOKIE_NAME = "reelfarm_session"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{1,5})?", re.IGNORECASE)
#: No browser and no program of good will sends these; routers and proxies differ in what they make of them.
_ODD_PATH = re.compile(r"//|/\.{1,2}(?:/|$)|[\\\x00-\x1f\x7f]")
_HEADERS = frozenset(
    (
        b"host",
        b"origin",
        b"sec-fetch-site",
        b"authorization",
        b"cookie",
        b"accept",
        b"content-type",
        b"content-length",
    )
)


@dataclass(frozen=True)
class Principal:
    """Who asks. ``scopes`` is everything that is allowed, not only what a key was given by name."""

    id: str
    name: str
    scopes: frozenset[Scope]


#: Holds the token of the state folder.
OWNER = Principal("owner", "owner", GRANTS["admin"])


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request decides about it. A header that came more than once is None, or wrong."""

    method: str
    path: str
    query: str
    scheme: str
    address: str
    host: str | None
    origin: str | None
    #: ``Sec-Fetch-Site``, which a browser sets and no page can.
    fetch_site: str | None
    #: None: no ``Authorization: Bearer``.
    bearer: str | None
    cookie: str | None
    accept: str
    content_type: str
    #: As announced, in bytes; 0: not said.
    content_length: int

    @property
    def changes(self) -> bool:
        return self.method not in SAFE_METHODS


def asked(scope: Mapping[str, Any]) -> Asked:
    """What an ASGI scope asks. No header that a proxy could have set, or a client invented, is believed."""
    found: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name in _HEADERS:
            found.setdefault(name, []).append(value.decode("latin-1"))

    def one(name: bytes, doubled: str | None = None) -> str | None:
        values = found.get(name, ())
        return values[0] if len(values) == 1 else doubled if values else None

    length = (found.get(b"content-length") or ("",))[0]
    return Asked(
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        scheme=scope["scheme"],
        address=(scope.get("client") or ("unknown",))[0],
        host=one(b"host"),
        origin=one(b"origin", "null"),
        fetch_site=one(b"sec-fetch-site", "cross-site"),
        bearer=_bearer(one(b"authorization", "Bearer ")),
        cookie=_cookie(found.get(b"cookie", ())),
        accept=(found.get(b"accept") or ("",))[0],
        content_type=(found.get(b"content-type") or ("",))[0].partition(";")[0].strip().lower(),
        content_length=int(length) if length.isdecimal() and len(length) < 20 else 0,
    )


def bearer_token(headers: Headers) -> str | None:
    """The token of an ``Authorization: Bearer`` header."""
    return _bearer(headers.get("authorization")) or None


def _bearer(header: str | None) -> str | None:
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _cookie(headers: Collection[str]) -> str | None:
    for header in headers:
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == COOKIE_NAME:
                return value
    return None


def area(path: str) -> str:
    """The area an address lies in: ``/api/v1/jobs`` for all that is below it, ``/jobs`` for the pages."""
    parts = path.split("/")
    depth = {"api": 4, "v1": 3}.get(parts[1] if len(parts) > 1 else "", 2)
    return "/".join(parts[:depth])


def need(method: str, path: str) -> Need | None:
    """What an address wants; None: there is no such address, whatever the router would say."""
    if not path.startswith("/") or _ODD_PATH.search(path):
        return None
    wants = AREAS.get(area(path))
    return None if wants is None else wants[method not in SAFE_METHODS]


def refusal(asked: Asked, principal: Principal | None) -> FarmError | None:
    """Why somebody may not do this; None: they may. ``foreign`` has been asked before."""
    wanted = need(asked.method, asked.path)
    if wanted is None:
        return NotFound(f"{asked.path[:200]} is no address of this farm")
    if wanted == "open":
        return None
    if principal is None:
        return NotAllowed(
            "this farm wants a key; send it as `Authorization: Bearer <key>`, or log in at /login",
            param=KEY_PARAM,
        )
    if wanted not in principal.scopes:
        return Forbidden(
            f"this wants the scope {wanted}; {principal.name} has {', '.join(sorted(principal.scopes))}"
        )
    return None


def foreign(asked: Asked, allowed_hosts: Collection[str]) -> Forbidden | None:
    """Why a request looks like the work of another site's page; None: it does not.

    A page that has rebound its name to this machine shows by its Host, one that posts from elsewhere by its
    Origin or by what the browser says of it. A key is nothing a foreign page has, so a request with one may
    name any host, such as that of a proxy. An IP address is no name: there is nothing to rebind.

    Args:
        allowed_hosts: names, in small letters, besides those of loopback.
    """
    with_key = asked.bearer is not None
    if not with_key and not _known_host(asked.host, allowed_hosts):
        said = (asked.host or "missing or there twice")[:100]
        return Forbidden(
            f"host is {said}, which is no name of this farm; `farm up --allow-host NAME` adds one",
            param="host",
        )
    if asked.origin is not None and not _own_origin(asked):
        return Forbidden(
            f"origin is {asked.origin[:100]}; pages of other sites may not use this farm", param="origin"
        )
    if not asked.changes:
        return None
    if asked.fetch_site in ("cross-site", "same-site"):
        return Forbidden("the request comes from a page of another site", param="origin")
    by_cookie = not with_key and asked.cookie is not None
    if by_cookie and asked.origin is None and asked.fetch_site != "same-origin":
        return Forbidden(
            "a session changes something only from this farm's own pages, which name their origin; "
            "programs send a key instead",
            param="origin",
        )
    return None


def _own_origin(asked: Asked) -> bool:
    if asked.host is None or asked.origin is None:
        return False
    origins = {f"{asked.scheme}://{asked.host}".lower()}
    if asked.fetch_site == "same-origin":  # TLS ends at a proxy before us
        origins.add(f"https://{asked.host}".lower())
    return asked.origin.lower() in origins


def _known_host(host: str | None, allowed_hosts: Collection[str]) -> bool:
    found = _HOST.fullmatch(host or "")
    if found is None:
        return False
    name = (found["v6"] or found["name"]).lower()
    if name in _LOOPBACK or name in allowed_hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def login_address(asked: Asked) -> str | None:
    """Where a browser without a session is sent instead of being refused; None: it opened no page."""
    page = not asked.path.startswith(_DOORS) and need(asked.method, asked.path) is not None
    if asked.changes or not page or "text/html" not in asked.accept:
        return None
    wanted = quote(asked.path) + (f"?{asked.query}" if asked.query else "")
    return "/login" if wanted == "/" else f"/login?next={quote(wanted, safe='/')}"
