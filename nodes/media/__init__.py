"""Users' pictures and videos: taken in safely, shown, or painted from words.

Code that decodes and draws enters; nothing here knows of workers or of Ray.
"""

from __future__ import annotations

from nodes.media import pictures
from nodes.media.backdrop import backdrop
from nodes.media.intake_sandbox import normalise

__all__ = [
    "backdrop",
    "normalise",
    "pictures",
]
