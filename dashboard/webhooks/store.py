"""What the farm knows of each webhook and of the deliveries to it, in the doors' store."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

from dashboard.doors_store import write
from farm.errors import NotFound

#: Deliveries that are remembered for each webhook.
KEPT_DELIVERIES = 200

_SCHEMA = """
CREATE TABLE IF NOT EXISTS webhooks (
    id TEXT PRIMARY KEY,
    secret TEXT NOT NULL,
    state TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS webhook_deliveries (
    number INTEGER PRIMARY KEY,
    webhook_id TEXT NOT NULL,
    delivery TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS deliveries_by_webhook ON webhook_deliveries (webhook_id, number);
"""


@dataclass(frozen=True)
class Webhook:
    """Times in seconds since the epoch."""

    id: str
    url: str
    #: Types of the events that are sent.
    events: tuple[str, ...]
    description: str
    created_at: float
    #: Sequence number of the newest event that was taken; later ones are still to be sent.
    cursor: int
    #: Failed attempts at the event that is next, since the first of them, and when to try again.
    attempts: int = 0
    failing_since: float | None = None
    next_at: float | None = None
    #: Why nothing is sent any more; None while it is.
    disabled_because: str | None = None


@dataclass(frozen=True)
class Delivery:
    """One attempt. ``status`` is None when no answer came; ``error`` is empty when it was taken."""

    message_id: str
    type: str
    #: Of the event; None for a test.
    seq: int | None
    attempt: int
    at: float
    status: int | None
    error: str
    duration_s: float


class WebhookStore:
    """Every change is on the disk when its call returns, or raises CannotRun.

    The secrets must be kept as they are, to sign.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript(_SCHEMA)

    def add(self, webhook: Webhook, secret: str) -> None:
        write(self._db, "INSERT INTO webhooks VALUES (?, ?, ?)", (webhook.id, secret, _json(webhook)))

    def save(self, webhook: Webhook) -> None:
        """Keep a changed webhook; one that was removed meanwhile stays removed."""
        write(self._db, "UPDATE webhooks SET state = ? WHERE id = ?", (_json(webhook), webhook.id))

    def all(self) -> list[Webhook]:
        """Oldest first."""
        found = self._db.execute("SELECT state FROM webhooks ORDER BY rowid")
        return [_webhook(state) for (state,) in found]

    def find(self, webhook_id: str) -> Webhook | None:
        found = self._db.execute("SELECT state FROM webhooks WHERE id = ?", (webhook_id,)).fetchone()
        return _webhook(found[0]) if found else None

    def get(self, webhook_id: str) -> Webhook:
        """
        Raises:
            NotFound: there is no such webhook.
        """
        webhook = self.find(webhook_id)
        if webhook is None:
            raise NotFound(f"there is no webhook {webhook_id}", param="webhook_id")
        return webhook

    def secret(self, webhook_id: str) -> str:
        found = self._db.execute("SELECT secret FROM webhooks WHERE id = ?", (webhook_id,)).fetchone()
        if found is None:
            raise NotFound(f"there is no webhook {webhook_id}", param="webhook_id")
        return str(found[0])

    def remove(self, webhook_id: str) -> None:
        """
        Raises:
            NotFound: there is no such webhook.
        """
        self.get(webhook_id)
        write(self._db, "DELETE FROM webhooks WHERE id = ?", (webhook_id,))
        write(self._db, "DELETE FROM webhook_deliveries WHERE webhook_id = ?", (webhook_id,))

    def note(self, webhook_id: str, delivery: Delivery) -> None:
        """Remember a delivery, and forget the oldest ones."""
        write(
            self._db,
            "INSERT INTO webhook_deliveries (webhook_id, delivery) VALUES (?, ?)",
            (webhook_id, json.dumps(asdict(delivery))),
        )
        write(
            self._db,
            "DELETE FROM webhook_deliveries WHERE webhook_id = ?1 AND number <= (SELECT number FROM"
            " webhook_deliveries WHERE webhook_id = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            (webhook_id, KEPT_DELIVERIES),
        )

    def deliveries(self, webhook_id: str, limit: int) -> list[Delivery]:
        """The newest first.

        Raises:
            NotFound: there is no such webhook.
        """
        self.get(webhook_id)
        found = self._db.execute(
            "SELECT delivery FROM webhook_deliveries WHERE webhook_id = ? ORDER BY number DESC LIMIT ?",
            (webhook_id, limit),
        )
        return [Delivery(**json.loads(delivery)) for (delivery,) in found]


def _json(webhook: Webhook) -> str:
    return json.dumps(asdict(webhook))


def _webhook(state: str) -> Webhook:
    values: dict[str, Any] = json.loads(state)
    return Webhook(**{**values, "events": tuple(values["events"])})
