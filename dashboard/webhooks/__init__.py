"""Events sent to other programs until they take them.

Webhooks, their deliveries and their routes enter.
"""

from __future__ import annotations

from dashboard.webhooks.routes import webhooks_router
from dashboard.webhooks.sending import Webhooks
from dashboard.webhooks.store import WebhookStore

__all__ = [
    "WebhookStore",
    "Webhooks",
    "webhooks_router",
]
