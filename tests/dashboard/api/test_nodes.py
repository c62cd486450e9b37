"""Machines and workers: how they are, letting them rest and come back, letting machines in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dashboard.http.queries import cursor_after
from farm.running.membership import ClusterAccess, Membership
from farm.state.index import told_models
from farm.state.workers import Telemetry


async def statuses(farm: Any) -> dict[str, str]:
    found = (await farm.get("workers")).json()["data"]
    return {worker["id"]: worker["status"] for worker in found}


async def test_workers_say_what_they_are_and_why_they_idle(farm: Any, photo: Path) -> None:
    (node,) = (await farm.get("nodes")).json()["data"]
    assert (node["name"], node["address"], node["status"]) == ("near", "127.0.0.1", "idle")
    assert [(w["id"], w["kind"], w["status"]) for w in node["workers"]] == [
        ("near/cpu0", "cpu", "idle"),
        ("near/cpu1", "cpu", "idle"),
    ]
    assert {w["idle_because"] for w in node["workers"]} == {"no job is running"}
    assert (await farm.get("nodes/near")).json() == node
    assert (await farm.get("workers")).json()["data"] == node["workers"]
    assert (await farm.get("nodes/near/workers/cpu1")).json() == node["workers"][1]
    assert {w["models"] for w in node["workers"]} == {None}
    told_models(farm.coordinator.ledger.state, "near/cpu1", {"wan2.2-ti2v-5b": 7, "tiny_wan": 0})
    (node,) = (await farm.get("nodes")).json()["data"]
    assert [w["models"] for w in node["workers"]] == [{"wan2.2-ti2v-5b": 7}] * 2
    runnable = (await farm.get("models/runnable", params={"model": "tiny_wan"})).json()["data"]
    assert runnable[0]["held_by"] == []
    await farm.finished_job(photo)
    learned = [w for w in (await farm.get("workers")).json()["data"] if w["warm_model"]]
    assert learned
    assert all(w["seconds_per_mpixel_step"]["procedural"] > 0 for w in learned)


async def test_machines_and_workers_come_by_the_page_while_others_come_and_go(start_farm: Any) -> None:
    farm = await start_farm(workers=("a/cpu0", "a/cpu1", "b/cpu0", "c/cpu0"))

    async def page(path: str, cursor: str | None) -> tuple[list[str], str | None]:
        wanted = {"limit": 1} | ({} if cursor is None else {"cursor": cursor})
        told = (await farm.get(path, params=wanted)).json()
        return [each.get("name", each.get("id")) for each in told["data"]], told["next_cursor"]

    names, after_a = await page("nodes", None)
    ids, after_first = await page("workers", None)
    assert (names, ids) == (["a"], ["a/cpu0"])
    assert (await page("workers", after_first))[0] == ["a/cpu1"]
    farm.coordinator.worker_down("a/cpu0", "died")
    farm.coordinator.worker_down("a/cpu1", "died")
    names, after_b = await page("nodes", after_a)
    assert names == ["b"]
    assert await page("nodes", after_b) == (["c"], None)
    assert (await page("workers", after_first))[0] == ["b/cpu0"]
    refused = await farm.get("nodes", params={"cursor": cursor_after(1)})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "cursor")


async def test_a_worker_at_work_says_at_what(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=("near/cpu0",))
    job_id = (await farm.submit(photo, num_frames=200)).json()["id"]
    await farm.until(lambda: farm.coordinator.ledger.state.workers["near/cpu0"].attempts)
    worker = (await farm.get("nodes/near/workers/cpu0")).json()
    assert (worker["status"], worker["idle_because"]) == ("busy", "")
    assert worker["tasks"][0]["job_id"] == job_id
    await farm.post(f"jobs/{job_id}/cancel")


async def test_what_a_device_does_not_tell_is_null(farm: Any) -> None:
    state = farm.coordinator.ledger.state.workers["near/cpu0"]
    state.telemetry = Telemetry("near/cpu0", load=0.5, memory_used_bytes=7)
    state.telemetry_at = 12.5
    worker = (await farm.get("nodes/near/workers/cpu0")).json()
    told = ("load", "memory_used_bytes", "telemetry_at")
    assert [worker[name] for name in told] == [0.5, 7, 12.5]
    unknown = ("vram_used_bytes", "vram_total_bytes", "temperature_c", "power_w", "price_per_hour", "driver")
    assert [worker[name] for name in unknown] == [None] * len(unknown)


async def test_a_drained_machine_rests_until_it_is_enabled(start_farm: Any, photo: Path) -> None:
    farm = await start_farm(workers=("a/cpu0", "a/cpu1", "b/cpu0"))
    answer = await farm.post("nodes/a/drain")
    assert (answer.status_code, {w["status"] for w in answer.json()["workers"]}) == (200, {"draining"})
    drained = {"a/cpu0": "drained", "a/cpu1": "drained", "b/cpu0": "idle"}
    await farm.until(lambda: len(farm.coordinator.ledger.state.workers) == 1)
    assert await statuses(farm) == drained
    assert (await farm.get("nodes/a")).json()["status"] == "drained"
    assert (await farm.post("nodes/a/drain")).status_code == 200
    assert await statuses(farm) == drained

    answer = await farm.post("nodes/a/enable")
    assert (answer.status_code, len(answer.json()["workers"])) == (200, 2)
    await farm.until(lambda: len(farm.coordinator.ledger.state.workers) == 3)
    assert set((await statuses(farm)).values()) == {"idle"}


async def test_a_worker_is_drained_alone(start_farm: Any) -> None:
    farm = await start_farm(workers=("a/cpu0", "a/cpu1"))
    assert (await farm.post("nodes/a/workers/cpu1/drain")).json()["status"] == "draining"
    await farm.until(lambda: len(farm.coordinator.ledger.state.workers) == 1)
    worker = (await farm.get("nodes/a/workers/cpu1")).json()
    assert (worker["status"], "farm enable a/cpu1" in worker["idle_because"]) == ("drained", True)
    assert (await farm.post("nodes/a/workers/cpu1/enable")).status_code == 200
    await farm.until(lambda: len(farm.coordinator.ledger.state.workers) == 2)
    assert await statuses(farm) == {"a/cpu0": "idle", "a/cpu1": "idle"}


async def test_who_is_not_there_is_not_found(farm: Any) -> None:
    for where, param in (("nodes/far", "node"), ("nodes/near/workers/cpu9", "worker_id")):
        answers = [await farm.get(where)]
        answers += [await farm.post(f"{where}/{what}") for what in ("drain", "enable")]
        for answer in answers:
            assert (answer.status_code, farm.error_of(answer)["param"]) == (404, param)


async def test_a_machine_joins_once_with_a_token_and_leaves_with_its_own(start_farm: Any) -> None:
    farm = await start_farm(workers=("a/cpu0",))
    made = (await farm.post("join-tokens")).json()
    assert made["command"] == f"farm join 127.0.0.1:8700 --token {made['token']}"
    bearer = {"Authorization": f"Bearer {made['token']}"}
    offer = await farm.post("join", json={"node": "attic"}, headers=bearer)
    assert (offer.status_code, offer.json()["ray_address"]) == (200, "10.0.0.1:6379")
    for headers in (bearer, {"Authorization": ""}):
        again = await farm.post("join", json={"node": "attic"}, headers=headers)
        assert (again.status_code, farm.error_of(again)["code"]) == (401, "not_allowed")
    wrong = await farm.post("leave", json={"node": "a"}, headers=bearer)
    assert (wrong.status_code, await statuses(farm)) == (401, {"a/cpu0": "idle"})
    own = {"Authorization": f"Bearer {offer.json()['node_token']}"}
    farm.add_worker("attic/cpu0")
    await farm.until(lambda: len(farm.coordinator.ledger.state.workers) == 2)
    back = await farm.post("join", json={"node": "attic"}, headers=own)
    assert (back.status_code, back.json()) == (200, offer.json()), "its Ray had ended"
    assert (await farm.post("join", json={"node": "b"}, headers=own)).status_code == 401
    left = await farm.post("leave", json={"node": "attic"}, headers=own)
    assert (left.status_code, left.json()) == (200, {"workers": ["attic/cpu0"]})
    await farm.until(lambda: len(farm.coordinator.ledger.state.workers) == 1)
    assert await statuses(farm) == {"a/cpu0": "idle"}


async def test_a_removed_machine_is_gone_with_the_key_it_joined_with(start_farm: Any) -> None:
    farm = await start_farm(workers=("a/cpu0",))
    made = (await farm.post("keys", json={"name": "attic", "scopes": ["node"]})).json()
    bearer = {"Authorization": f"Bearer {made['key']}"}
    offer = (await farm.post("join", json={"node": "attic"}, headers=bearer)).json()
    farm.add_worker("attic/cpu0")
    await farm.until(lambda: len(farm.coordinator.ledger.state.workers) == 2)
    assert [w["joined"] for w in (await farm.get("workers")).json()["data"]] == [False, True]
    removed = await farm.http.delete("/api/v1/nodes/attic")
    assert removed.status_code == 200
    assert removed.json() == {"node": "attic", "revoked_keys": [made["id"]], "has_owner_token": False}
    assert await statuses(farm) == {"a/cpu0": "idle"}
    for token in (made["key"], offer["node_token"]):
        headers = {"Authorization": f"Bearer {token}"}
        assert (await farm.post("join", json={"node": "attic"}, headers=headers)).status_code == 401
    await farm.post("join", json={"node": "attic"})
    again = (await farm.http.delete("/api/v1/nodes/attic")).json()
    assert again == {"node": "attic", "revoked_keys": [], "has_owner_token": True}
    own = await farm.http.delete("/api/v1/nodes/a")
    assert (own.status_code, farm.error_of(own)["param"]) == (404, "node")


async def test_a_key_for_nodes_joins_and_leaves_in_place_of_a_token(start_farm: Any) -> None:
    farm = await start_farm(workers=("a/cpu0",), access="the owner's token")
    owner = {"Authorization": "Bearer the owner's token"}
    keys = {
        scope: (await farm.post("keys", json={"name": scope, "scopes": [scope]}, headers=owner)).json()["key"]
        for scope in ("node", "submit")
    }
    for scope, status in (("submit", 401), ("node", 200)):
        headers = {"Authorization": f"Bearer {keys[scope]}"}
        assert (await farm.post("join", json={"node": "attic"}, headers=headers)).status_code == status
        assert (await farm.post("leave", json={"node": "a"}, headers=headers)).status_code == status
    await farm.until(lambda: not farm.coordinator.ledger.state.workers)
    assert farm.coordinator.ledger.state.drained == {}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("body", ["", "{", "[]", "{}", '{"node": 3}', '{"nodes": "a"}', '{"node": "A B"}'])
async def test_a_wrong_body_is_refused(shared_farm: Any, body: str) -> None:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer x"}
    answer = await shared_farm.post("join", content=body, headers=headers)
    assert (answer.status_code, shared_farm.error_of(answer)["code"]) == (400, "invalid_input")


async def test_the_farm_tries_the_ports_of_whoever_asks_and_of_nobody_else(start_farm: Any) -> None:
    farm = await start_farm(workers=())
    word = b"eight bytes"

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        no_key = {"Authorization": ""}
        asked = {"ports": [port], "word": word.hex()}
        answer = await farm.post("join/reach", json=asked, headers=no_key)
        assert answer.status_code == 200
        assert answer.json() == {
            "address": "127.0.0.1",
            "unreached": [],
            "listening": [8471, 8472, 8473, 8474],
            "ports": "8471-8599",
        }
        other = await farm.post("join/reach", json={**asked, "word": "00" * 11}, headers=no_key)
        assert other.json()["unreached"] == [port]
    for wrong in (
        {"ports": [80]},
        {"ports": []},
        {"word": "zz"},
        {"word": "00"},
        {"ports": list(range(2000, 4000))},
    ):
        answer = await farm.post("join/reach", json=asked | wrong, headers=no_key)
        assert (answer.status_code, farm.error_of(answer)["code"]) == (400, "invalid_input")


async def test_a_farm_on_loopback_says_how_to_be_reached_instead_of_a_line_that_cannot_work(
    start_farm: Any,
) -> None:
    alone = Membership(
        None,  # type: ignore[arg-type]
        cluster=lambda: ClusterAccess("127.0.0.1:1", "t"),
        secret="s",
        versions={},
        ports=None,
    )
    farm = await start_farm(workers=(), membership=alone)
    answer = await farm.post("join-tokens")
    assert (answer.status_code, farm.error_of(answer)["code"]) == (422, "cannot_run")
    assert "start it with `farm up --listen ADDRESS`" in farm.error_of(answer)["message"]
