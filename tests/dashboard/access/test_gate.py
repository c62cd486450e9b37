"""The gate, with routes behind it that any app could have: what passes, and what is written down."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from dashboard.access.audit import Audit
from dashboard.access.gate import Gate
from dashboard.access.keys import Keys
from dashboard.access.limits import MAX_JSON_BYTES, Limits, Rate
from dashboard.access.one_time_tokens import LOGIN_EXPIRY_S, OneTimeTokens
from dashboard.access.routes import access_router
from dashboard.access.sessions import Sessions
from dashboard.doors_store import STORE_NAME, open_store
from dashboard.http.error_answers import answer_errors
from dashboard.http.security_headers import SECURITY_HEADERS
from farm.values import Value

TOKEN = "the-owners-token"
JOBS = "/api/v1/jobs"
SESSION = "/api/v1/session"
HERE = "http://127.0.0.1:8700"
OWNER = {"Authorization": f"Bearer {TOKEN}"}
MUCH = Rate(10_000, 10_000)


class Named(Value):
    name: str


class Door:
    """An app behind a gate, and whoever knocks."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.store = open_store(folder / STORE_NAME)
        self.keys = Keys(self.store, TOKEN)
        self.sessions = Sessions(self.store, self.keys)
        self.audit = Audit(folder / "audit.jsonl")
        #: What the routes saw.
        self.seen: list[Any] = []
        self.app = FastAPI(redirect_slashes=False)
        self.app.state.keys = self.keys
        self._add_routes()
        login_links = OneTimeTokens(LOGIN_EXPIRY_S)
        self.app.router.routes.extend(access_router(self.keys, self.sessions, login_links, self.audit).routes)
        answer_errors(self.app)
        self.app.add_middleware(
            Gate,
            keys=self.keys,
            sessions=self.sessions,
            audit=self.audit,
            limits=limits,
            allowed_hosts=("Farm.Example",),
        )
        self.http = self.client()

    def client(self) -> httpx2.AsyncClient:
        """A browser or a program of its own."""
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url=HERE)

    def key(self, *scopes: Any) -> tuple[str, dict[str, str]]:
        key, text = self.keys.create("somebody", scopes, None)
        return key.id, {"Authorization": f"Bearer {text}"}

    async def logged_in(self, key: str = TOKEN) -> httpx2.AsyncClient:
        browser = self.client()
        assert (await browser.post(SESSION, json={"key": key})).status_code == 200
        return browser

    def _add_routes(self) -> None:
        @self.app.api_route(JOBS, methods=["GET", "HEAD"])
        async def jobs(request: Request) -> str:
            self.seen.append(request.state.principal)
            return "jobs"

        @self.app.post(JOBS, status_code=201)
        async def submit(request: Request) -> int:
            request.state.subject = "job-0123456789ab"
            taken = 0
            async for chunk in request.stream():
                taken += len(chunk)
            return taken

        @self.app.post("/api/v1/plans")
        async def plan(named: Named) -> str:
            return named.name

        @self.app.post("/api/v1/join-tokens")
        async def token(named: Named) -> str:
            return named.name

        @self.app.get("/api/v1/health")
        async def health() -> str:
            return "ok"

        @self.app.get("/jobs")
        async def page() -> str:
            return "page"

        @self.app.get("/api/v1/nodes")
        async def broken() -> None:
            raise RuntimeError("a mistake")

        @self.app.get("/undecided")
        async def undecided() -> str:
            return "nobody said who may see this"

        @self.app.get("/api/v1/events")
        async def events() -> StreamingResponse:
            async def stream() -> AsyncIterator[bytes]:
                try:
                    while True:
                        yield b"data: {}\n\n"
                        await asyncio.sleep(0.01)
                finally:
                    self.seen.append("the stream ended")

            return StreamingResponse(stream(), media_type="text/event-stream")


@pytest.fixture
def door(tmp_path: Path) -> Callable[..., Door]:
    def make(limits: Limits | None = None) -> Door:
        return Door(tmp_path, limits or Limits(MUCH, MUCH, MUCH, MUCH, MUCH))

    return make


def said(answer: httpx2.Response) -> tuple[int, str, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["type"], error["code"], error["param"]


async def test_nobody_comes_in_without_a_key_and_the_owner_does(door: Any) -> None:
    opened = door()
    for headers in ({}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer"}, {"Cookie": TOKEN}):
        answer = await opened.http.get(JOBS, headers=headers)
        assert said(answer) == (401, "authentication_error", "not_allowed", "Authorization")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for wrong in ("", "wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper()):
        answer = await opened.http.get(JOBS, headers={"Authorization": f"Bearer {wrong}"})
        assert answer.status_code == 401
    assert (await opened.http.get(JOBS, headers={"Authorization": b"Bearer \xff\xfe"})).status_code == 401
    assert opened.seen == []
    assert (await opened.http.get(JOBS, headers=OWNER)).status_code == 200
    assert (opened.seen[0].id, opened.seen[0].name) == ("owner", "owner")


async def test_a_key_opens_what_its_scope_says(door: Any) -> None:
    opened = door()
    key_id, reader = opened.key("read")
    assert (await opened.http.get(JOBS, headers=reader)).status_code == 200
    assert opened.seen[0].id == key_id
    refused = await opened.http.post(JOBS, headers=reader)
    assert said(refused) == (403, "permission_error", "forbidden", None)
    assert "the scope submit" in refused.json()["error"]["message"]
    assert (await opened.http.post(JOBS, headers=opened.key("submit")[1])).status_code == 201
    assert (await opened.http.get("/api/v1/keys", headers=opened.key("submit")[1])).status_code == 403


async def test_a_wrong_key_is_not_made_good_by_a_cookie(door: Any) -> None:
    opened = door()
    browser = await opened.logged_in()
    assert (await browser.get(JOBS)).status_code == 200
    assert (await browser.get(JOBS, headers={"Authorization": "Bearer wrong"})).status_code == 401
    doubled = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer wrong")]
    assert (await browser.get(JOBS, headers=doubled)).status_code == 401


SPELLINGS = [
    ("/api/v1/%6aobs", 401),
    ("/%61pi/v1/jobs", 401),
    ("/api/v1/jobs%2F", 401),
    ("/api/v1/jobs/", 401),
    ("/api%2Fv1%2Fjobs", 401),
    ("/api/v1/jobs?x=/api/v1/health", 401),
    ("/api/v1/jobs;/api/v1/health", 404),
    ("//api/v1/jobs", 404),
    ("//evil.example/", 404),
    ("http://evil.example/api/v1/jobs", 404),
    ("/api/v1//jobs", 404),
    ("/static/../api/v1/jobs", 404),
    ("/static/%2e%2e/api/v1/jobs", 404),
    ("/static/..%2Fapi/v1/jobs", 404),
    ("/api/v1/health/../jobs", 404),
    ("/api/v1/health%2F..%2Fjobs", 404),
    ("/api/v1/health%2F%2Ejobs", 404),
    ("/api/v1/health/jobs", 404),
    ("/login/../api/v1/jobs", 404),
    ("/login%5C..%5Capi", 404),
    ("/login%00", 404),
    ("/API/V1/JOBS", 404),
    ("/undecided", 404),
]


async def test_no_spelling_of_an_address_slips_past_the_decision(door: Any, serve: Any) -> None:
    """Sent as it stands: a client would tidy up some of it."""
    opened = door()
    port = int((await serve(opened.app)).rpartition(":")[2])
    for method, (path, status) in itertools.product(("GET", "HEAD", "POST"), SPELLINGS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (method, path)
        writer.close()
    assert opened.seen == []


async def test_methods_that_look_are_as_guarded_as_get(door: Any) -> None:
    opened = door()
    for method in ("HEAD", "OPTIONS", "TRACE", "PUT", "BREW"):
        assert (await opened.http.request(method, JOBS)).status_code == 401
    assert (await opened.http.head(JOBS, headers=OWNER)).status_code == 200
    allowed = await opened.http.options(JOBS, headers=OWNER)
    assert (allowed.status_code, "access-control-allow-origin" in allowed.headers) == (405, False)
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert said(await opened.http.options(JOBS, headers=preflight))[2:] == ("forbidden", "origin")


async def test_a_websocket_is_refused(door: Any) -> None:
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": JOBS,
        "headers": [(b"authorization", OWNER["Authorization"].encode())],
    }
    await door().app(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_to_be_on_this_machine_is_not_enough(door: Any) -> None:
    """Other users are on it as well."""
    opened = door()
    for address in ("127.0.0.1", "::1"):
        transport = httpx2.ASGITransport(opened.app, client=(address, 4711))
        async with httpx2.AsyncClient(transport=transport, base_url=HERE) as neighbour:
            for method, path in (("GET", JOBS), ("POST", JOBS), ("POST", "/api/v1/join-tokens")):
                answer = await neighbour.request(method, path)
                assert said(answer) == (401, "authentication_error", "not_allowed", "Authorization")
    assert opened.seen == []


async def test_a_page_that_rebound_its_name_gets_nothing(door: Any) -> None:
    opened = door()
    browser = await opened.logged_in()
    for path in (JOBS, "/api/v1/health", "/login", SESSION):
        rebound = await browser.get(path, headers={"Host": "evil.example:8700"})
        assert said(rebound) == (403, "permission_error", "forbidden", "host")
    assert (await browser.get(JOBS, headers={"Host": "farm.example"})).status_code == 200
    foreign = {"Origin": "https://evil.example"}
    for method, path in (("GET", JOBS), ("POST", JOBS), ("POST", "/api/v1/keys")):
        answer = await browser.request(method, path, headers=foreign)
        assert said(answer)[2:] == ("forbidden", "origin")


async def test_a_login_link_lets_one_browser_in_as_whoever_made_it(door: Any) -> None:
    opened = door()
    key_id, admin = opened.key("admin")
    for who, headers in (("owner", OWNER), (key_id, admin)):
        made = await opened.http.post("/api/v1/login-links", headers=headers)
        assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
        page, _, key = made.json()["path"].partition("#key=")
        assert page == "/login"
        assert len(key) > 40
        # It opens nothing but the door for browsers, and that once.
        assert (await opened.http.get(JOBS, headers={"Authorization": f"Bearer {key}"})).status_code == 401
        browser = await opened.logged_in(key)
        assert (await browser.get(SESSION)).json()["principal"]["id"] == who
        assert (await opened.client().post(SESSION, json={"key": key})).status_code == 401
        assert (await browser.get(JOBS)).status_code == 200
    made = (await opened.http.post("/api/v1/login-links", headers=admin)).json()["path"]
    opened.keys.revoke(key_id)
    late = await opened.client().post(SESSION, json={"key": made.partition("#key=")[2]})
    assert said(late)[:3] == (401, "authentication_error", "not_allowed")
    for scope in ("read", "submit", "node"):
        refused = await opened.http.post("/api/v1/login-links", headers=opened.key(scope)[1])
        assert refused.status_code == 403


async def test_a_page_of_another_site_changes_nothing_with_the_cookie(door: Any) -> None:
    opened = door()
    browser = await opened.logged_in()
    for headers in (
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": HERE},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ):
        answer = await browser.post(JOBS, headers=headers)
        assert answer.json()["error"]["code"] == "forbidden", headers
    for headers in ({"Origin": HERE}, {"Sec-Fetch-Site": "same-origin"}):
        assert (await browser.post(JOBS, headers=headers)).status_code == 201
    # With a key from a page of another site: it is no page of ours that sends it.
    foreign = {**OWNER, "Origin": "https://evil.example"}
    assert (await opened.http.post(JOBS, headers=foreign)).json()["error"]["param"] == "origin"
    assert (await opened.http.post(JOBS, headers={**OWNER, "Host": "any.example"})).status_code == 201


async def test_logging_in_sets_a_cookie_that_scripts_and_other_sites_do_not_get(door: Any) -> None:
    opened = door()
    key_id, reader = opened.key("read")
    key = reader["Authorization"].removeprefix("Bearer ")
    answer = await opened.http.post(SESSION, json={"key": f" {key}\n"}, headers={"Origin": HERE})
    assert answer.json() == {
        "principal": {"id": key_id, "name": "somebody"},
        "scopes": ["read"],
    }
    cookie = answer.headers["set-cookie"]
    name, value = cookie.partition(";")[0].split("=", 1)
    assert name == "reelfarm_session"
    assert len(value) >= 40
    assert value not in answer.text
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=1209600"} <= parts
    assert "secure" not in parts
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await opened.http.get(SESSION)).json()["principal"]["id"] == key_id


async def test_the_cookie_stays_on_https(door: Any) -> None:
    opened = door()
    behind_proxy = {"Host": "farm.example", "Origin": "https://farm.example", "Sec-Fetch-Site": "same-origin"}
    answer = await opened.http.post(SESSION, json={"key": TOKEN}, headers=behind_proxy)
    assert "; Secure" in answer.headers["set-cookie"]
    direct = await opened.client().post(
        SESSION.replace("/api", "https://127.0.0.1:8700/api"), json={"key": TOKEN}
    )
    assert "; Secure" in direct.headers["set-cookie"]


async def test_a_wrong_login_is_refused_and_a_foreign_page_logs_nobody_in(door: Any) -> None:
    opened = door()
    for key in ("", "wrong", "rf_00000000_x", "\x00", "ü"):
        answer = await opened.http.post(SESSION, json={"key": key})
        assert said(answer) == (401, "authentication_error", "not_allowed", "key")
        assert "set-cookie" not in answer.headers
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await opened.http.post(SESSION, json={"key": TOKEN}, headers=headers)
        assert said(answer)[2:] == ("forbidden", "origin")
    form = {"Content-Type": "text/plain"}
    answer = await opened.http.post(SESSION, content=json.dumps({"key": TOKEN}), headers=form)
    assert "set-cookie" not in answer.headers


async def test_a_session_cannot_be_chosen_from_outside(door: Any) -> None:
    opened = door()
    chosen = opened.client()
    chosen.cookies.set("reelfarm_session", "chosen-by-somebody-else")
    assert (await chosen.get(JOBS)).status_code == 401
    answer = await chosen.post(SESSION, json={"key": TOKEN}, headers={"Origin": HERE})
    assert "chosen-by-somebody-else" not in answer.headers["set-cookie"]
    planted = opened.client()
    planted.cookies.set("reelfarm_session", "chosen-by-somebody-else")
    assert (await planted.get(JOBS)).status_code == 401
    # Logging in again ends the session there was.
    first = dict(chosen.cookies)["reelfarm_session"] if len(chosen.cookies) == 1 else None
    browser = await opened.logged_in()
    old = browser.cookies["reelfarm_session"]
    await browser.post(SESSION, json={"key": TOKEN}, headers={"Origin": HERE})
    assert browser.cookies["reelfarm_session"] not in (old, first)
    assert opened.sessions.find(old) is None


async def test_who_logs_out_is_out_with_every_copy_of_the_cookie(door: Any) -> None:
    opened = door()
    browser = await opened.logged_in()
    copied = opened.client()
    copied.cookies.set("reelfarm_session", browser.cookies["reelfarm_session"])
    assert (await copied.get(JOBS)).status_code == 200
    assert (await browser.delete(SESSION)).status_code == 403  # a foreign page cannot log anybody out
    assert (await browser.delete(SESSION, headers={"Origin": HERE})).status_code == 204
    assert "reelfarm_session" not in browser.cookies
    assert (await copied.get(JOBS)).status_code == 401
    assert (await browser.delete(SESSION)).status_code == 204


async def test_who_am_i_is_answered_to_everybody(door: Any) -> None:
    nobody = await door().http.get(SESSION)
    assert nobody.json() == {"principal": None, "scopes": []}


async def test_keys_are_made_listed_and_revoked(door: Any) -> None:
    opened = door()
    wanted = {"name": "night\nrenders", "scopes": ["submit", "submit"], "expires_in_s": 86400}
    made = await opened.http.post("/api/v1/keys", json=wanted, headers=OWNER)
    assert made.status_code == 201
    key = made.json().pop("key")
    assert made.json()["name"] == "night?renders"
    assert made.json()["scopes"] == ["submit"]
    assert made.json()["expires_at"] - made.json()["created_at"] == 86400
    listed = (await opened.http.get("/api/v1/keys", headers=OWNER)).json()
    assert listed["data"] == [{k: v for k, v in made.json().items() if k != "key"}]
    assert key not in json.dumps(listed)
    headers = {"Authorization": f"Bearer {key}"}
    assert (await opened.http.post(JOBS, headers=headers)).status_code == 201
    browser = await opened.logged_in(key)
    address = f"/api/v1/keys/{made.json()['id']}"
    assert (await opened.http.delete(address, headers=headers)).status_code == 403
    assert (await opened.http.delete(address, headers=OWNER)).status_code == 204
    assert (await opened.http.post(JOBS, headers=headers)).status_code == 401
    assert (await browser.get(JOBS)).status_code == 401
    assert said(await opened.http.delete(address, headers=OWNER))[2] == "not_found"
    assert (await opened.http.get("/api/v1/keys", headers=OWNER)).json()["data"][0]["revoked_at"]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"name": "", "scopes": ["read"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "scopes": "admin"},
        {"name": "x", "scopes": ["read"], "expires_in_s": 0},
        {"name": "x", "scopes": ["read"], "expires_in_s": 1e300},
        {"name": "x" * 101, "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "id": "00000000"},
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(wrong: dict[str, Any], door: Any) -> None:
    opened = door()
    answer = await opened.http.post("/api/v1/keys", json=wrong, headers=OWNER)
    assert said(answer)[:3] == (400, "invalid_request_error", "invalid_input")
    assert opened.keys.all() == []


@pytest.mark.parametrize("end", ["revoke", "log out"])
async def test_an_open_event_stream_ends_with_its_key_or_session(end: str, door: Any, serve: Any) -> None:
    opened = door()
    key_id, reader = opened.key("read")
    async with httpx2.AsyncClient(base_url=await serve(opened.app)) as http:
        cookie = opened.sessions.start(key_id)
        headers = reader if end == "revoke" else {"Cookie": f"reelfarm_session={cookie}"}
        async with (
            http.stream("GET", "/api/v1/events", headers=headers) as theirs,
            http.stream("GET", "/api/v1/events", headers=OWNER) as owners,
        ):
            theirs_coming, owners_coming = theirs.aiter_raw(), owners.aiter_raw()
            assert b"data" in await anext(theirs_coming)
            if end == "revoke":
                opened.keys.revoke(key_id)
            else:
                opened.sessions.end(cookie)
            async for _ in theirs_coming:  # comes to its end
                pass
            while not opened.seen:
                await asyncio.sleep(0.01)
            assert opened.seen == ["the stream ended"]
            assert b"data" in await anext(owners_coming)


async def test_a_browser_is_led_to_the_login_and_a_program_is_refused(door: Any) -> None:
    opened = door()
    browser = {"Accept": "text/html,application/xhtml+xml"}
    led = await opened.http.get("/jobs?q=coffee&order=asc", headers=browser)
    assert (led.status_code, led.headers["Location"]) == (303, "/login?next=/jobs%3Fq%3Dcoffee%26order%3Dasc")
    assert (await opened.http.get("/jobs")).status_code == 401
    assert (await opened.http.get(JOBS, headers=browser)).status_code == 401
    inside = await opened.logged_in()
    assert (await inside.get("/jobs", headers=browser)).status_code == 200


async def test_every_answer_tells_browsers_what_to_leave_alone(door: Any) -> None:
    opened = door()
    answers = [
        await opened.http.get(JOBS, headers=OWNER),
        await opened.http.get(JOBS),
        await opened.http.get("/nothing"),
        await opened.http.get("/jobs", headers={"Accept": "text/html"}),
        await opened.http.get(JOBS, headers={"Host": "evil.example"}),
        await opened.http.put(JOBS, headers=OWNER),
        await opened.http.get("/api/v1/nodes", headers=OWNER),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 404, 303, 403, 405, 500]
    for answer in answers:
        assert {name: answer.headers.get_list(name) for name in SECURITY_HEADERS} == {
            name: [value] for name, value in SECURITY_HEADERS.items()
        }
    policy = SECURITY_HEADERS["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


async def test_who_asks_too_often_is_told_when_to_come_back(door: Any) -> None:
    slow = Rate(0.01, 3)
    opened = door(limits=Limits(read=slow, change=slow, submit=slow, login=slow, refusal=MUCH))
    assert [(await opened.http.get(JOBS, headers=OWNER)).status_code for _ in range(4)] == [200] * 3 + [429]
    refused = await opened.http.get(JOBS, headers=OWNER)
    assert said(refused) == (429, "rate_limit_error", "rate_limited", None)
    assert 90 <= int(refused.headers["Retry-After"]) <= 100
    # Another caller, another kind of request: other buckets.
    assert (await opened.http.get(JOBS, headers=opened.key("read")[1])).status_code == 200
    assert (await opened.http.post(JOBS, headers=OWNER)).status_code == 201
    # Guessing keys is slow, from an address, whatever they name.
    guesses = [await opened.http.post(SESSION, json={"key": f"rf_{n:08x}_x"}) for n in range(4)]
    assert [answer.status_code for answer in guesses] == [401] * 3 + [429]
    for headers in ({}, opened.key("read")[1]):
        assert (await opened.http.post(SESSION, json={"key": TOKEN}, headers=headers)).status_code == 429
    # Whoever has no key shares what their address has.
    assert [(await opened.http.get(JOBS)).status_code for _ in range(4)] == [401] * 3 + [429]


async def test_who_has_many_addresses_guesses_no_faster_for_it(door: Any) -> None:
    opened = door(limits=Limits(login=MUCH, refusal=MUCH, login_of_all=Rate(0.01, 3)))
    statuses = []
    for number in range(5):
        transport = httpx2.ASGITransport(opened.app, client=(f"10.0.0.{number}", 4711))
        async with httpx2.AsyncClient(transport=transport, base_url=HERE) as guesser:
            statuses.append((await guesser.post(SESSION, json={"key": f"rf_{number:08x}_x"})).status_code)
    assert statuses == [401] * 3 + [429] * 2
    # Whoever is in goes on, and so do programs, which log nobody in.
    assert (await opened.http.get(JOBS, headers=OWNER)).status_code == 200


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("path", ["/api/v1/join-tokens", "/api/v1/keys", SESSION])
async def test_a_long_body_is_refused_before_it_is_in_memory(announced: bool, path: str, door: Any) -> None:
    opened = door()
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"name": "'
        while sent < 64 * MAX_JSON_BYTES:
            sent += 1 << 16
            yield b"x" * (1 << 16)
            await asyncio.sleep(0)

    headers = {**OWNER, "Content-Type": "application/json"}
    if announced:
        headers["Content-Length"] = str(64 * MAX_JSON_BYTES + 10)
    transport = httpx2.ASGITransport(opened.app)
    async with httpx2.AsyncClient(transport=transport, base_url=HERE) as http:
        answer = await http.post(path, content=body(), headers=headers)
    assert said(answer)[:3] == (413, "invalid_request_error", "too_large")
    assert sent <= (0 if announced else MAX_JSON_BYTES + (1 << 17))


@pytest.mark.parametrize("path", [JOBS, "/api/v1/join-tokens"])
async def test_a_body_that_stops_coming_is_given_up_and_one_that_comes_slowly_is_not(
    path: str, door: Any
) -> None:
    opened = door(limits=Limits(MUCH, MUCH, MUCH, MUCH, MUCH, body_silence_s=0.2, body_pace=1))
    headers = {**OWNER, "Content-Type": "application/json"}

    async def body(end: str, pause_s: float) -> AsyncIterator[bytes]:
        for part in ('{"name": ', '"so', "me", "bo", "dy", end):
            yield part.encode()
            await asyncio.sleep(pause_s)

    answer = await opened.http.post(path, content=body('"}', 0.05), headers=headers)
    assert answer.status_code in (200, 201)
    answer = await opened.http.post(path, content=body('"}', 60), headers=headers)
    assert said(answer)[:3] == (408, "invalid_request_error", "too_slow")
    assert answer.headers["Connection"] == "close"


async def test_a_body_that_never_stops_coming_slowly_is_given_up(door: Any) -> None:
    opened = door(limits=Limits(MUCH, MUCH, MUCH, MUCH, MUCH, body_silence_s=0.2, body_pace=1000))
    headers = {**OWNER, "Content-Type": "multipart/form-data; boundary=x"}

    async def body(part: bytes, num_parts: int) -> AsyncIterator[bytes]:
        for _ in range(num_parts):
            yield part
            await asyncio.sleep(0.05)

    answer = await opened.http.post(JOBS, content=body(b"x", 1_000_000), headers=headers)
    assert said(answer)[:3] == (408, "invalid_request_error", "too_slow")
    assert "slower than 1000 bytes a second" in answer.json()["error"]["message"]
    answer = await opened.http.post(JOBS, content=body(b"x" * 1000, 20), headers=headers)
    assert answer.json() == 20_000


async def test_a_form_with_files_passes_uncounted(door: Any) -> None:
    opened = door()
    form = {**OWNER, "Content-Type": "multipart/form-data; boundary=x"}
    body = bytes(40 << 20)
    assert (await opened.http.post(JOBS, content=body, headers=form)).json() == len(body)
    plain = {**OWNER, "Content-Type": "application/json"}
    assert (await opened.http.post(JOBS, content=body, headers=plain)).status_code == 413
    assert (await opened.http.post("/api/v1/keys", content=bytes(2 << 20), headers=form)).status_code == 413


async def test_what_was_changed_who_came_in_and_who_was_refused_is_written_down(door: Any) -> None:
    opened = door()
    _, reader = opened.key("read")
    await opened.http.get(JOBS, headers=OWNER)
    await opened.http.get("/nothing", headers=OWNER)
    await opened.http.get("/jobs", headers={"Accept": "text/html"})
    await opened.http.get("/api/v1/health")
    assert opened.audit.newest(100) == []
    await opened.http.post(JOBS + "?secret=1", headers=OWNER)
    made = await opened.http.post("/api/v1/keys", json={"name": "x", "scopes": ["read"]}, headers=OWNER)
    await opened.logged_in()
    await opened.http.post(SESSION, json={"key": "wrong"})
    await opened.http.post(JOBS, headers=reader)
    await opened.http.get(JOBS)
    await opened.http.post(JOBS, headers={**OWNER, "Origin": "https://evil.example"})
    key = made.json()["key"]
    await opened.http.delete(f"/api/v1/keys/{key}", headers=OWNER)
    found = (await opened.http.get("/api/v1/audit?limit=100", headers=OWNER)).json()["data"]
    told = [
        (entry["principal"], entry["method"], entry["path"], entry["status"], entry["subject"])
        for entry in reversed(found)
    ]
    key_id = opened.keys.all()[1].id
    assert told == [
        ("owner", "POST", JOBS, 201, "job-0123456789ab"),
        ("owner", "POST", "/api/v1/keys", 201, made.json()["id"]),
        ("owner", "POST", SESSION, 200, None),
        (None, "POST", SESSION, 401, None),
        (key_id, "POST", JOBS, 403, None),
        (None, "GET", JOBS, 401, None),
        ("owner", "POST", JOBS, 403, None),
        ("owner", "DELETE", f"/api/v1/keys/rf_{made.json()['id']}_...", 404, None),
    ]
    assert {entry["address"] for entry in found} == {"127.0.0.1"}
    assert found[0]["at"] >= found[-1]["at"] > 1.6e9
    text = json.dumps(found)
    for secret in (TOKEN, key, reader["Authorization"].removeprefix("Bearer ")):
        assert secret not in text
    assert (await opened.http.get("/api/v1/audit?limit=1", headers=OWNER)).json()["data"] == found[:1]
    assert (await opened.http.get("/api/v1/audit?limit=0", headers=OWNER)).status_code == 400


async def test_nobody_can_flood_the_audit_log_and_what_was_changed_is_in_it(door: Any) -> None:
    opened = door(limits=Limits(MUCH, MUCH, MUCH, MUCH, refusal=Rate(0.001, 5)))
    for _ in range(20):
        await opened.http.get(JOBS)
        await opened.http.post(SESSION, json={"key": "wrong"})
    assert len(opened.audit.newest(100)) == 5
    for _ in range(10):
        await opened.http.post(JOBS, headers=OWNER)
    await opened.logged_in()
    assert len(opened.audit.newest(100)) == 16


async def test_a_mistake_of_the_farm_is_written_down_as_such(door: Any) -> None:
    opened = door()

    @opened.app.post("/api/v1/jobs/x")
    async def broken() -> None:
        raise RuntimeError("a mistake")

    assert (await opened.http.post("/api/v1/jobs/x", headers=OWNER)).status_code == 500
    assert opened.audit.newest(1)[0]["status"] == 500


async def test_a_refusal_that_leaves_a_body_unread_closes_the_connection(door: Any) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"{"

    opened = door()
    refused = await opened.http.post(JOBS, content=body())
    assert (refused.status_code, refused.headers["connection"]) == (401, "close")
    looked = await opened.http.get(JOBS)
    assert (looked.status_code, "connection" in looked.headers) == (401, False)
    read = await opened.http.post(SESSION, json={"key": "wrong"})
    assert (read.status_code, "connection" in read.headers) == (401, False)
