"""Who may enter a whole farm: every route of it, its keys from the command line, its machines."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from typer.testing import CliRunner

from dashboard.access.decisions import AREAS, area, need
from dashboard.access.limits import Limits, Rate
from dashboard.server import serve as serve_until_cancelled
from farm.cli.key_commands import keys, parse_duration_s
from farm.client import FarmClient
from farm.errors import Forbidden, InvalidInput, NotAllowed, NotFound, TooManyRequests

TOKEN = "the-right-token"
JOBS = "/api/v1/jobs"
OPEN = {
    ("GET", "/api/v1/health"),
    ("POST", "/api/v1/join"),
    ("POST", "/api/v1/join/reach"),
    ("POST", "/api/v1/leave"),
    ("GET", "/api/v1/session"),
    ("POST", "/api/v1/session"),
    ("DELETE", "/api/v1/session"),
    ("GET", "/login"),
    ("GET", "/static/x/x"),
}
#: Changes something, and needs neither ``submit`` nor ``admin``.
FOR_MACHINES = {("POST", "/api/v1/join-tokens")}


@pytest.fixture
async def guarded(start_farm: Any) -> Any:
    return await start_farm(access=TOKEN, workers=())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def every_route(app: FastAPI) -> Iterator[tuple[str, str]]:
    """(method, an address) of all routes, pages and files included."""
    for context in iter_route_contexts(app.routes):
        assert context.path is not None, context
        for method in (context.methods or {"GET"}) - {"HEAD"}:
            yield method, re.sub(r"\{[^}]*\}", "x", context.path)


async def test_somebody_has_decided_about_every_route_and_no_more_than_that(guarded: Any) -> None:
    routes = set(every_route(guarded.app))
    assert len(routes) > 50
    assert {(method, path) for method, path in routes if need(method, path) is None} == set()
    assert {(method, path) for method, path in routes if need(method, path) == "open"} == OPEN
    for method, path in routes - OPEN:
        # HEAD is GET; and changing something takes more than looking.
        assert need("HEAD", path) == need("GET", path)
        if method != "GET" and (method, path) not in FOR_MACHINES:
            assert need(method, path) in ("submit", "admin"), (method, path)
    assert {area(path) for _, path in routes} == set(AREAS)


async def test_every_route_wants_a_key_but_those_that_are_open(guarded: Any) -> None:
    for method, path in every_route(guarded.app):
        answer = await guarded.http.request(method, path)
        if (method, path) not in OPEN:
            told = (method, path, answer.text[:200])
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_allowed"), told
            foreign = await guarded.http.request(method, path, headers={"Host": "evil.example"})
            assert foreign.status_code == 403, told
    for path in ("/api/v1/join", "/api/v1/leave"):
        refused = await guarded.http.post(path, json={"node": "attic"})
        assert refused.status_code == 401
        assert "join token" in refused.json()["error"]["message"]


async def test_a_readers_key_changes_nothing_anywhere(guarded: Any) -> None:
    key = (await created(guarded, "read"))["key"]
    for method, path in every_route(guarded.app):
        if method != "GET" and (method, path) not in OPEN:
            answer = await guarded.http.request(method, path, headers=bearer(key))
            assert answer.status_code == 403, (method, path)
    assert (await guarded.http.get(JOBS, headers=bearer(key))).status_code == 200
    assert (await guarded.http.get("/jobs", headers=bearer(key))).status_code == 200
    assert (await guarded.http.get("/metrics", headers=bearer(key))).status_code == 200


async def created(farm: Any, *scopes: str) -> Any:
    wanted = {"name": "somebody", "scopes": scopes}
    return (await farm.http.post("/api/v1/keys", json=wanted, headers=bearer(TOKEN))).json()


async def test_the_pages_lead_to_the_login_and_back_in(guarded: Any) -> None:
    browser = {"Accept": "text/html"}
    led = await guarded.http.get("/jobs", headers=browser)
    assert (led.status_code, led.headers["Location"]) == (303, "/login?next=/jobs")
    page = await guarded.http.get("/login", headers=browser)
    assert page.status_code == 200
    assert "<title>Log in" in page.text
    entered = await guarded.http.post("/api/v1/session", json={"key": TOKEN})
    assert entered.json()["principal"] == {"id": "owner", "name": "owner"}
    assert (await guarded.http.get("/jobs", headers=browser)).status_code == 200
    assert (await guarded.http.get(JOBS)).status_code == 200


async def test_keys_outlive_the_farm_they_were_made_in(start_farm: Any, guarded: Any) -> None:
    key = (await created(guarded, "read"))["key"]
    again = await start_farm(access="another token", workers=())
    assert (await again.http.get(JOBS, headers=bearer(key))).status_code == 200
    assert (await again.http.get(JOBS, headers=bearer(TOKEN))).status_code == 401


def farm_keys(url: str, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "farm", "keys", *arguments, "--farm", url, "--token", token],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
async def test_keys_are_made_listed_and_revoked_from_the_command_line(guarded: Any, serve: Any) -> None:
    url = await serve(guarded.app)

    def use() -> None:
        made = farm_keys(url, TOKEN, "create", "night renders", "--scope", "submit", "--expires", "30d")
        assert made.returncode == 0, made.stderr
        key = made.stdout.strip()
        assert re.fullmatch(r"rf_[0-9a-f]{8}_[\w-]{43}", key)
        assert key not in made.stderr
        assert "night renders" in made.stderr
        key_id = key[3:11]
        with contextlib.closing(FarmClient(url, key)) as client:
            assert client.is_up()
            with pytest.raises(Forbidden, match="the scope admin"):
                client.keys()
            with contextlib.closing(FarmClient(url, TOKEN)) as owner:
                (known,) = owner.keys()
            assert (known["id"], known["scopes"]) == (key_id, ["submit"])
            assert known["expires_at"] - known["created_at"] == 30 * 86400
            assert farm_keys(url, TOKEN, "revoke", key_id).returncode == 0
            with pytest.raises(NotAllowed):
                client.keys()
        again = farm_keys(url, TOKEN, "revoke", key_id)
        assert (again.returncode, again.stderr.count("\n")) == (2, 1)
        assert "revoked already" in again.stderr
        listed = farm_keys(url, TOKEN).stdout
        assert re.search(rf"{key_id} +night renders +submit .* revoked", listed)

    await asyncio.to_thread(use)


def test_an_option_that_would_be_overlooked_is_refused() -> None:
    ran = CliRunner().invoke(keys, ["--farm", "http://farm.example", "create", "x", "--scope", "read"])
    assert isinstance(ran.exception, InvalidInput)
    assert "options go behind `farm keys create`" in ran.exception.message


async def test_what_the_farm_refuses_about_keys_is_raised_as_its_own_error(
    start_farm: Any, serve: Any
) -> None:
    guarded = await start_farm(access=TOKEN, workers=(), limits=Limits(read=Rate(0.001, 3)))
    url = await serve(guarded.app)

    def use() -> None:
        with contextlib.closing(FarmClient(url, TOKEN)) as client:
            for scopes in ([], ["root"]):
                with pytest.raises(InvalidInput, match="scopes"):
                    client.create_key("x", scopes)
            with pytest.raises(NotFound):
                client.revoke_key("../keys")
            for _ in range(3):
                client.keys()
            with pytest.raises(TooManyRequests, match="try again in"):
                client.keys()

    await asyncio.to_thread(use)


@pytest.mark.parametrize(
    ("text", "seconds"), [("12h", 43200), ("30d", 2592000), ("4w", 2419200), ("1y", 31536000)]
)
def test_how_long_a_key_lasts_is_said_in_words(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5d", "30 d", "30m", "9999999d", "३d"])
def test_how_long_a_key_lasts_must_make_sense(text: str) -> None:
    with pytest.raises(InvalidInput, match="expires"):
        parse_duration_s(text)


async def test_what_a_proxy_may_have_said_is_not_believed(guarded: Any) -> None:
    """With the server that ``farm up`` runs: it could be the one that believes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = asyncio.ensure_future(serve_until_cancelled(guarded.app, "127.0.0.1", port))
    claimed = {
        "X-Forwarded-For": "10.9.8.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "farm.example",
        "Forwarded": "for=10.9.8.7;proto=https",
    }
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=claimed) as http:
        while True:
            with contextlib.suppress(httpx2.ConnectError):
                entered = await http.post("/api/v1/session", json={"key": TOKEN})
                break
            await asyncio.sleep(0.02)
        assert entered.status_code == 200
        assert "secure" not in entered.headers["set-cookie"].lower()
        told = (await http.get("/api/v1/audit", headers=bearer(TOKEN))).json()["data"]
        assert {entry["address"] for entry in told} == {"127.0.0.1"}
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def test_a_machine_joins_once_with_its_token(guarded: Any) -> None:
    made = await guarded.http.post("/api/v1/join-tokens", headers=bearer(TOKEN))
    assert made.status_code == 201
    one_time = bearer(made.json()["token"])
    joined = await guarded.http.post("/api/v1/join", headers=one_time, json={"node": "attic"})
    assert joined.json()["ray_address"] == "10.0.0.1:6379"
    again = await guarded.http.post("/api/v1/join", headers=one_time, json={"node": "attic"})
    assert (again.status_code, again.json()["error"]["code"]) == (401, "not_allowed")


async def test_a_join_token_opens_nothing_else(guarded: Any) -> None:
    one_time = bearer((await guarded.http.post("/api/v1/join-tokens", headers=bearer(TOKEN))).json()["token"])
    assert (await guarded.http.get(JOBS, headers=one_time)).status_code == 401
    assert (await guarded.http.post("/api/v1/keys", headers=one_time)).status_code == 401
    joined = await guarded.http.post("/api/v1/join", headers=one_time, json={"node": "attic"})
    assert joined.status_code == 200


async def test_a_key_for_machines_lets_them_in_again_and_again_and_does_nothing_else(guarded: Any) -> None:
    machine = bearer((await created(guarded, "node"))["key"])
    for node in ("attic", "cellar", "attic"):
        joined = await guarded.http.post("/api/v1/join", headers=machine, json={"node": node})
        assert joined.json()["node_token"]
        left = await guarded.http.post("/api/v1/leave", headers=machine, json={"node": node})
        assert left.json() == {"workers": []}
    assert (await guarded.http.post("/api/v1/join-tokens", headers=machine)).status_code == 201
    for method, path in (("GET", JOBS), ("POST", JOBS), ("POST", "/api/v1/keys"), ("GET", "/jobs")):
        assert (await guarded.http.request(method, path, headers=machine)).status_code == 403
    for scope in ("read", "submit"):
        other = bearer((await created(guarded, scope))["key"])
        refused = await guarded.http.post("/api/v1/join", headers=other, json={"node": "attic"})
        assert refused.status_code == 401


async def test_to_be_on_this_machine_lets_no_other_one_in(guarded: Any) -> None:
    for headers in ({}, bearer("guessed")):
        for path in ("/api/v1/join", "/api/v1/leave"):
            refused = await guarded.http.post(path, headers=headers, json={"node": "attic"})
            assert refused.status_code == 401


async def test_a_machine_leaves_with_its_own_token_and_no_other(farm: Any) -> None:
    made = await farm.http.post("/api/v1/join-tokens")
    joined = await farm.http.post("/api/v1/join", headers=bearer(made.json()["token"]), json={"node": "far"})
    own = bearer(joined.json()["node_token"])
    farm.add_worker("far/cpu0")
    await farm.until(lambda: "far/cpu0" in farm.coordinator.ledger.state.workers)
    for node, headers in (("near", own), ("far", bearer("guessed")), ("far", bearer(""))):
        refused = await farm.http.post("/api/v1/leave", headers=headers, json={"node": node})
        assert refused.status_code == 401
    assert len(farm.coordinator.ledger.state.workers) == 3
    assert (await farm.http.post("/api/v1/leave", headers=own, json={"node": "far"})).status_code == 200
    await farm.until(lambda: "far/cpu0" not in farm.coordinator.ledger.state.workers)
    gone = await farm.http.post("/api/v1/leave", headers=own, json={"node": "far"})
    assert gone.json() == {"workers": []}


async def test_a_name_that_is_taken_is_refused(farm: Any) -> None:
    made = await farm.http.post("/api/v1/join-tokens")
    refused = await farm.http.post(
        "/api/v1/join", headers=bearer(made.json()["token"]), json={"node": "near"}
    )
    assert refused.status_code == 400
    assert "--name" in refused.json()["error"]["message"]
