"""The doors: REST, OpenAI-shaped videos, events, webhooks, metrics, pages.

Only ``farm`` may be imported; what the farm does is asked of its coordinator, never done here.
"""

from __future__ import annotations
