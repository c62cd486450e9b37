"""``/v1/videos``: the farm's jobs in the shape of OpenAI's videos API.

What official clients send and read enters; the jobs behind it are those of every other door.
"""

from __future__ import annotations

from dashboard.videos.intake import VideosIntake
from dashboard.videos.routes import videos_router

__all__ = [
    "VideosIntake",
    "videos_router",
]
