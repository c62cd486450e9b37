"""Routes of machines and their workers: what they do, letting them rest and come back, letting them in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse
from typing_extensions import TypedDict

from dashboard.access import OWNER, Keys, OneTimeTokens, Principal, bearer_token
from dashboard.api.examples import JOIN_OFFER, NODE, WORKER
from dashboard.http import (
    DEFAULT_LIMIT,
    MACHINE_KEY,
    NO_KEY,
    Cursor,
    Limit,
    NodeRequest,
    ReachRequest,
    answers,
    api_router,
    page_of_names,
)
from dashboard.live import (
    NodeSummary,
    WorkerSummary,
    node_summaries,
    node_summary,
    summaries_of,
    worker_ids,
    worker_summary_by_id,
    workers_by_node,
)
from farm.errors import NotAllowed, NotFound
from farm.running import Coordinator, Membership, Reached

#: A name that may stand in a command line.
_NETLOC = re.compile(r"[A-Za-z0-9.:\[\]-]{1,260}")

GONE = "it is enabled, and comes back with its machine"

NodeName = Annotated[str, Path(description="Name of a machine.", examples=["attic"])]
Slot = Annotated[str, Path(description="One of its workers.", examples=["cuda0"])]


class NodeList(TypedDict):
    data: list[NodeSummary]
    next_cursor: str | None
    #: Sequence number of the newest event this tells of.
    last_event_id: int


class WorkerList(TypedDict):
    data: list[WorkerSummary]
    next_cursor: str | None
    last_event_id: int


class JoinToken(TypedDict):
    token: str
    #: What to type on the machine that joins.
    command: str


class JoinOffer(TypedDict):
    """What a machine needs to become a node."""

    ray_address: str
    ray_token: str
    versions: dict[str, str]
    #: With which it leaves again.
    node_token: str


class Removed(TypedDict):
    node: str
    #: Ids of the keys it showed when it joined; they are revoked.
    revoked_keys: list[str]
    #: It showed the owner's token, which it still has.
    has_owner_token: bool


class Left(TypedDict):
    #: Those that are still at a segment.
    workers: list[str]


_NO_NODE = {404: "There is no such machine."}
_NO_WORKER = {404: "There is no such worker."}


def nodes_router(
    coordinator: Coordinator, join_tokens: OneTimeTokens, membership: Membership, keys: Keys
) -> APIRouter:
    """Routes under which machines and their workers are seen, come and go."""
    router = api_router("nodes")
    ledger = coordinator.ledger
    state = ledger.state

    def found_node(name: str) -> NodeSummary:
        ids = workers_by_node(state).get(name)
        if ids is None:
            raise NotFound(f"there is no node {name}; `farm nodes` lists them", param="node")
        return node_summaries(state, {name: ids})[0]

    def found_worker(worker_id: str) -> WorkerSummary:
        worker = worker_summary_by_id(state, worker_id)
        if worker is None:
            raise NotFound(f"there is no worker {worker_id}; `farm nodes` lists them", param="worker_id")
        return worker

    def changed(workers: Sequence[WorkerSummary], change: Callable[[str], None]) -> list[WorkerSummary]:
        """Drain or enable workers, and tell how they are then."""
        for worker in workers:
            change(worker["id"])
        now = {worker["id"]: worker for worker in summaries_of(state, [worker["id"] for worker in workers])}
        # One that is enabled while its machine is away is not listed until both come back.
        return [now.get(worker["id"], {**worker, "idle_because": GONE}) for worker in workers]

    @router.get(
        "/nodes",
        summary="Machines",
        response_model=NodeList,
        responses=answers({"data": [NODE], "next_cursor": None, "last_event_id": 512}),
    )
    async def nodes(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> JSONResponse:
        """Every machine with its workers, in the order of their names."""
        workers = workers_by_node(state)
        names, following = page_of_names(list(workers), cursor, limit)
        found = node_summaries(state, {name: workers[name] for name in names})
        return JSONResponse({"data": found, "next_cursor": following, "last_event_id": ledger.last_seq})

    @router.get(
        "/nodes/{node}",
        summary="One machine",
        response_model=NodeSummary,
        responses=answers(NODE, errors=_NO_NODE),
    )
    async def node(node: NodeName) -> JSONResponse:
        """A machine with its workers."""
        return JSONResponse(found_node(node))

    @router.post(
        "/nodes/{node}/drain",
        summary="Drain a machine",
        response_model=NodeSummary,
        responses=answers(NODE, errors=_NO_NODE),
    )
    async def drain_node(node: NodeName) -> JSONResponse:
        """Its workers finish what they have, end and free their memory; they stay listed until enabled."""
        return JSONResponse(node_summary(node, changed(found_node(node)["workers"], coordinator.drain)))

    @router.post(
        "/nodes/{node}/enable",
        summary="Enable a machine",
        response_model=NodeSummary,
        responses=answers(NODE, errors=_NO_NODE),
    )
    async def enable_node(node: NodeName) -> JSONResponse:
        """Let its drained workers come back, and take back a drain that has not ended."""
        return JSONResponse(node_summary(node, changed(found_node(node)["workers"], coordinator.enable)))

    @router.delete(
        "/nodes/{node}",
        summary="Remove a machine for cause",
        response_model=Removed,
        responses=answers(
            {"node": "attic", "revoked_keys": ["3f9a1c07"], "has_owner_token": False}, errors=_NO_NODE
        ),
    )
    async def remove_node(node: NodeName) -> Removed:
        """Take a machine out at once that is not to be trusted any more, here or not.

        Keys it joined with are revoked, its own token opens nothing, and Ray is started again with another
        token, with which the other machines come back by themselves. Its segments are rendered elsewhere.
        """
        revoked = []
        key_ids = membership.remove(node)
        for key_id in sorted(key_ids - {OWNER.id}):
            with suppress(NotFound):  # it was revoked before
                keys.revoke(key_id)
                revoked.append(key_id)
        return {"node": node, "revoked_keys": revoked, "has_owner_token": OWNER.id in key_ids}

    @router.get(
        "/workers",
        summary="Workers",
        response_model=WorkerList,
        responses=answers({"data": [WORKER], "next_cursor": None, "last_event_id": 512}),
    )
    async def workers(limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> JSONResponse:
        """Every worker of every machine, in the order of their ids."""
        ids, following = page_of_names(worker_ids(state), cursor, limit)
        found = summaries_of(state, ids)
        return JSONResponse({"data": found, "next_cursor": following, "last_event_id": ledger.last_seq})

    @router.get(
        "/nodes/{node}/workers/{slot}",
        summary="One worker",
        response_model=WorkerSummary,
        responses=answers(WORKER, errors=_NO_WORKER),
    )
    async def worker(node: NodeName, slot: Slot) -> JSONResponse:
        """A worker: what it is, what it does, how its device is, why it idles."""
        return JSONResponse(found_worker(f"{node}/{slot}"))

    @router.post(
        "/nodes/{node}/workers/{slot}/drain",
        summary="Drain a worker",
        response_model=WorkerSummary,
        responses=answers({**WORKER, "status": "draining", "draining": True}, errors=_NO_WORKER),
    )
    async def drain(node: NodeName, slot: Slot) -> JSONResponse:
        """It finishes what it has, ends and frees its memory; it stays listed until it is enabled."""
        return JSONResponse(changed([found_worker(f"{node}/{slot}")], coordinator.drain)[0])

    @router.post(
        "/nodes/{node}/workers/{slot}/enable",
        summary="Enable a worker",
        response_model=WorkerSummary,
        responses=answers(WORKER, errors=_NO_WORKER),
    )
    async def enable(node: NodeName, slot: Slot) -> JSONResponse:
        """Let a drained worker come back, or take back a drain that has not ended."""
        return JSONResponse(changed([found_worker(f"{node}/{slot}")], coordinator.enable)[0])

    @router.post(
        "/join-tokens",
        status_code=201,
        summary="Make a join token",
        response_model=JoinToken,
        responses=answers(
            {"token": "mZ1v…", "command": "farm join 192.168.1.10:8700 --token mZ1v…"}, status=201
        ),
    )
    async def join_token(request: Request) -> JSONResponse:
        """A token with which one machine may join, within a day."""
        membership.check_reachable()
        token = join_tokens.create()
        address = request.url.netloc if _NETLOC.fullmatch(request.url.netloc) else "ADDRESS:PORT"
        return JSONResponse({"token": token, "command": f"farm join {address} --token {token}"}, 201)

    @router.post(
        "/join/reach",
        summary="Try the way to a machine",
        response_model=Reached,
        openapi_extra=NO_KEY,
        responses=answers(
            {"address": "192.168.1.21", "unreached": [8473], "listening": [8471, 8472], "ports": "8471-8599"}
        ),
    )
    async def reach(request: Request, wanted: ReachRequest) -> Reached:
        """Connect to ports of whoever asks, as a machine that joins does; it says a word of its choice there.

        Wants no key: nobody learns of another's ports, nor of a port that does not say the word.
        """
        address = request.client.host if request.client else "unknown"
        return await membership.reach(address, wanted.ports, bytes.fromhex(wanted.word))

    @router.post(
        "/join",
        summary="Join the farm",
        response_model=JoinOffer,
        openapi_extra=MACHINE_KEY,
        responses=answers(JOIN_OFFER),
    )
    async def join_farm(
        request: Request, wanted: NodeRequest, token: Annotated[str, Depends(_machine_token)]
    ) -> dict[str, Any]:
        """What a joining machine needs.

        The bearer is a join token, used up by this, the node's own token of before, or a key for nodes.
        """
        request.state.subject = wanted.node
        returning = membership.knows(wanted.node, token)
        key_id = None if returning else _key_for_nodes(request)
        if not returning and key_id is None and join_tokens.redeem(token) is None:
            raise NotAllowed("the join token is wrong, used or too old; `farm join-token` makes a new one")
        return membership.join(wanted.node, key_id=key_id or "", returning=returning)

    @router.post(
        "/leave",
        summary="Leave the farm",
        response_model=Left,
        openapi_extra=MACHINE_KEY,
        responses=answers({"workers": ["attic/cuda0"]}),
    )
    async def leave_farm(
        request: Request, wanted: NodeRequest, token: Annotated[str, Depends(_machine_token)]
    ) -> dict[str, list[str]]:
        """Drain a node for good; the bearer is the node's own token, or a key for nodes.

        Asked again until no worker is left.
        """
        if _key_for_nodes(request) is None:
            return {"workers": membership.leave(wanted.node, token)}
        return {"workers": membership.let_go(wanted.node)}

    return router


def _key_for_nodes(request: Request) -> str | None:
    """Id of the key that was shown, if it lets machines in."""
    principal: Principal | None = request.state.principal
    return principal.id if principal is not None and "node" in principal.scopes else None


def _machine_token(request: Request) -> str:
    token = bearer_token(request.headers)
    if token is None:
        raise NotAllowed("a machine joins with a join token, and leaves with the one it was given then")
    return token
