from __future__ import annotations

from typing import Any

import pytest

TOKEN = "the-right-token"
JOBS = "/api/v1/jobs"


@pytest.fixture
async def guarded(start_farm: Any) -> Any:
    return await start_farm(access=TOKEN, workers=())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_every_route_but_health_wants_a_token(guarded: Any) -> None:
    paths = (await guarded.http.get("/api/v1/openapi.json", headers=bearer(TOKEN))).json()["paths"]
    assert len(paths) == 16
    for path, methods in paths.items():
        for method in methods:
            answer = await guarded.http.request(method, path.replace("{job_id}", "job-000000000000"))
            if path == "/api/v1/health":
                assert answer.json() == {"status": "ok"}
                continue
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_allowed"), path
            said = answer.json()["error"]["message"]
            assert ("join token" in said) == (path in ("/api/v1/join", "/api/v1/leave"))
    for path in ("/api/v1/openapi.json", "/nothing"):
        assert (await guarded.http.get(path)).status_code == 401


async def test_the_right_token_opens_and_any_other_does_not(guarded: Any) -> None:
    assert (await guarded.http.get(JOBS, headers=bearer(TOKEN))).json() == []
    for wrong in ("", "wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper()):
        answer = await guarded.http.get(JOBS, headers=bearer(wrong))
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for header in (TOKEN, f"Basic {TOKEN}", "Bearer", b"Bearer \xff\xfe"):
        assert (await guarded.http.get(JOBS, headers={"Authorization": header})).status_code == 401


async def test_a_farm_with_a_token_answers_to_any_host_name(guarded: Any) -> None:
    headers = {**bearer(TOKEN), "Host": "farm.example:8700"}
    assert (await guarded.http.get(JOBS, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8700", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8700"]
)
async def test_without_a_token_this_machines_names_are_answered(farm: Any, host: str) -> None:
    assert (await farm.http.get(JOBS, headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8700", "10.0.0.5", "a@b@c", "[", ""]
)
async def test_without_a_token_a_rebound_name_is_refused(farm: Any, host: str) -> None:
    for path in (JOBS, "/api/v1/health", "/api/v1/join"):
        answer = await farm.http.get(path, headers={"Host": host})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (403, "not_allowed", "host")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
async def test_without_a_token_a_page_of_another_site_may_not_post(farm: Any, origin: str) -> None:
    answer = await farm.http.post("/api/v1/join-tokens", headers={"Origin": origin})
    assert (answer.status_code, answer.json()["error"]["param"]) == (403, "origin")
    own = {"Origin": "http://127.0.0.1:8700"}
    assert (await farm.http.post("/api/v1/join-tokens", headers=own)).status_code == 201


async def test_a_machine_joins_once_with_its_token(guarded: Any) -> None:
    made = await guarded.http.post("/api/v1/join-tokens", headers=bearer(TOKEN))
    assert made.status_code == 201
    one_time = bearer(made.json()["token"])
    joined = await guarded.http.post("/api/v1/join", headers=one_time, json={"node": "attic"})
    assert joined.json()["ray_address"] == "10.0.0.1:6379"
    again = await guarded.http.post("/api/v1/join", headers=one_time, json={"node": "attic"})
    assert (again.status_code, again.json()["error"]["code"]) == (401, "not_allowed")


async def test_a_join_token_opens_nothing_else_and_the_access_token_does_not_join(guarded: Any) -> None:
    one_time = bearer((await guarded.http.post("/api/v1/join-tokens", headers=bearer(TOKEN))).json()["token"])
    assert (await guarded.http.get(JOBS, headers=one_time)).status_code == 401
    attic = {"node": "attic"}
    assert (await guarded.http.post("/api/v1/join", headers=bearer(TOKEN), json=attic)).status_code == 401
    assert (await guarded.http.post("/api/v1/join", headers=one_time, json=attic)).status_code == 200


async def test_a_machine_leaves_with_its_own_token_and_no_other(farm: Any) -> None:
    made = await farm.http.post("/api/v1/join-tokens")
    joined = await farm.http.post("/api/v1/join", headers=bearer(made.json()["token"]), json={"node": "far"})
    own = bearer(joined.json()["node_token"])
    farm.add_worker("far/cpu0")
    await farm.until(lambda: "far/cpu0" in farm.coordinator.ledger.state.workers)
    for node, headers in (("near", own), ("far", bearer("guessed")), ("far", {})):
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
