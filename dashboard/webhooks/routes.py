"""Routes of webhooks: made, listed, tried, removed, and what became of their deliveries."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from pydantic import Field, field_validator
from typing_extensions import TypedDict

from dashboard.http import Limit, answers, api_router
from dashboard.webhooks.sending import Webhooks
from dashboard.webhooks.store import Delivery, Webhook
from farm.values import Value

EventType = Literal[
    "node_admitted",
    "node_removed",
    "worker_joined",
    "worker_draining",
    "worker_left",
    "worker_enabled",
    "job_submitted",
    "task_assigned",
    "attempt_succeeded",
    "attempt_failed",
    "result_refused",
    "seam_measured",
    "task_reopened",
    "seam_accepted",
    "job_published",
    "job_failed",
    "job_cancelled",
    "job_prioritized",
    "job_retried",
    "job_reopened",
    "keyframes_ready",
    "keyframes_remade",
    "keyframe_replaced",
    "review_approved",
    "job_deleted",
    "licence_accepted",
    "removals_finished",
]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)
WebhookId = Annotated[str, PathParameter(description="Id of a webhook.", examples=["wh_5e1f09ab77c2"])]


class WebhookRequest(Value):
    """A webhook to be made."""

    url: str = Field(min_length=1, max_length=2000, examples=["https://studio.example/reelfarm"])
    events: list[EventType] = Field(
        default=["job_published", "job_failed"], min_length=1, examples=[["job_published"]]
    )
    description: str = Field("", max_length=200, examples=["posts finished videos"])

    @field_validator("events")
    @classmethod
    def _once_each(cls, events: list[EventType]) -> list[EventType]:
        return list(dict.fromkeys(events))


class WebhookSummary(TypedDict):
    id: str
    url: str
    events: list[str]
    description: str
    created_at: float
    #: Sequence number of the newest event that was taken.
    cursor: int
    #: Failed attempts in a row, since when, and when it is tried again.
    attempts: int
    failing_since: float | None
    next_at: float | None
    #: Why nothing is sent any more; null while it is.
    disabled_because: str | None


class NewWebhook(WebhookSummary):
    #: Shown this once. What a receiver verifies messages with (https://www.standardwebhooks.com).
    secret: str


class WebhookList(TypedDict):
    data: list[WebhookSummary]
    next_cursor: str | None


class DeliverySummary(TypedDict):
    #: The header `webhook-id`: the same for every attempt.
    message_id: str
    type: str
    #: Number of the event; null for a test.
    seq: int | None
    attempt: int
    at: float
    #: Of the receiver's answer; null when none came.
    status: int | None
    #: Empty when it was taken.
    error: str
    duration_s: float


class DeliveryList(TypedDict):
    data: list[DeliverySummary]
    next_cursor: str | None


_WEBHOOK: WebhookSummary = {
    "id": "wh_5e1f09ab77c2",
    "url": "https://studio.example/reelfarm",
    "events": ["job_published"],
    "description": "posts finished videos",
    "created_at": 1790000000.0,
    "cursor": 512,
    "attempts": 0,
    "failing_since": None,
    "next_at": None,
    "disabled_because": None,
}
_DELIVERY: DeliverySummary = {
    "message_id": "msg_5e1f09ab77c2_512_1a0c3f5d200",
    "type": "job_published",
    "seq": 512,
    "attempt": 1,
    "at": 1790000000.5,
    "status": 204,
    "error": "",
    "duration_s": 0.0421,
}
_NONE = {404: "There is no such webhook."}


def webhooks_router(webhooks: Webhooks) -> APIRouter:
    """Routes under which other programs ask to be told."""
    router = api_router("webhooks")
    store = webhooks.store

    @router.post(
        "/webhooks",
        status_code=201,
        summary="Make a webhook",
        responses=answers(
            {**_WEBHOOK, "secret": "whsec_b3duZXI..."}, status=201, said="With its secret, this once."
        ),
    )
    async def create(wanted: WebhookRequest, request: Request, response: Response) -> NewWebhook:
        """Have events posted to an address from now on: in order, each at least once, until it is taken.

        Messages are signed as Standard Webhooks (https://www.standardwebhooks.com): verify the headers
        `webhook-id`, `webhook-timestamp` and `webhook-signature` with the secret, and drop a `webhook-id`
        that was seen before. An answer of 200 to 299 takes a message; 410 ends the webhook. Redirects are
        not followed.
        """
        webhook, secret = webhooks.create(wanted.url, tuple(wanted.events), wanted.description)
        request.state.subject = webhook.id
        response.headers["Cache-Control"] = "no-store"
        return {**_summary(webhook), "secret": secret}

    @router.get(
        "/webhooks",
        summary="List the webhooks",
        responses=answers({"data": [_WEBHOOK], "next_cursor": None}, said="All of them."),
    )
    async def every() -> WebhookList:
        """Every webhook, the oldest first."""
        return {"data": [_summary(webhook) for webhook in store.all()], "next_cursor": None}

    @router.get("/webhooks/{webhook_id}", summary="One webhook", responses=answers(_WEBHOOK, errors=_NONE))
    async def one(webhook_id: WebhookId) -> WebhookSummary:
        """A webhook and how far it is."""
        return _summary(store.get(webhook_id))

    @router.delete(
        "/webhooks/{webhook_id}",
        status_code=204,
        summary="Delete a webhook",
        responses=answers(status=204, said="Deleted.", errors=_NONE),
    )
    async def remove(webhook_id: WebhookId) -> None:
        """Nothing more is sent to it."""
        store.remove(webhook_id)

    @router.post(
        "/webhooks/{webhook_id}/test",
        summary="Try a webhook",
        responses=answers({**_DELIVERY, "type": "test", "seq": None}, said="How it went.", errors=_NONE),
    )
    async def test(webhook_id: WebhookId) -> DeliverySummary:
        """Send a message of the type `test` now, once, and tell what became of it."""
        return _delivery(await webhooks.test(webhook_id))

    @router.post(
        "/webhooks/{webhook_id}/enable",
        summary="Enable a webhook",
        responses=answers(_WEBHOOK, said="As it is now.", errors=_NONE),
    )
    async def enable(webhook_id: WebhookId) -> WebhookSummary:
        """Go on where a disabled webhook stopped; one that waits to try again tries now."""
        return _summary(webhooks.enable(webhook_id))

    @router.get(
        "/webhooks/{webhook_id}/deliveries",
        summary="Deliveries of a webhook",
        responses=answers({"data": [_DELIVERY], "next_cursor": None}, said="The newest first.", errors=_NONE),
    )
    async def deliveries(webhook_id: WebhookId, limit: Limit = 50) -> DeliveryList:
        """Its newest attempts, at most 200 are kept."""
        found = store.deliveries(webhook_id, limit)
        return {"data": [_delivery(delivery) for delivery in found], "next_cursor": None}

    return router


def _summary(webhook: Webhook) -> WebhookSummary:
    found: WebhookSummary = asdict(webhook)  # type: ignore[assignment]
    return {**found, "events": list(webhook.events)}


def _delivery(delivery: Delivery) -> DeliverySummary:
    found: DeliverySummary = asdict(delivery)  # type: ignore[assignment]
    return found
