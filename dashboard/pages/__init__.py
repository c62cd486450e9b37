"""The pages: HTML shells, and the static files that fill them from the API.

Templates, scripts and styles enter; no page holds data.
"""

from __future__ import annotations

from dashboard.pages.routes import pages_router

__all__ = [
    "pages_router",
]
