"""The machines doing it: probing, memory, engines, workers, Ray.

``farm`` and ``stitching`` may be imported; decisions about jobs are not made here.
"""

from __future__ import annotations
