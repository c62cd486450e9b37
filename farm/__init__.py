"""What should happen: values, pure decisions, and the loop that acts on them at the edge.

Nothing of the other rooms enters, nor Ray, torch, OpenCV or FastAPI; only the command joins all rooms.
"""

from __future__ import annotations
