"""The pages: HTML shells, and the static files that fill them from the API.

Templates, scripts and styles enter; no page holds data.
"""

from __future__ import annotations

from dashboard.pages.exported import TRY_FOLDER, write_page
from dashboard.pages.routes import pages_router

__all__ = [
    "TRY_FOLDER",
    "pages_router",
    "write_page",
]
