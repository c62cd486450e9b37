"""Reelfarm from Python: long AI videos, made on the farm that is up or on this machine alone.

    from reelfarm import Farm, render

    video = render("photo.jpg", "the camera slowly pans right", seconds=10)   # no farm needed
    frames = video.frames()                              # uint8, (num_frames, height, width, 3), RGB
    video.save("out.mp4")

    farm = Farm()                                        # the one that is up here; or url and key of another
    job = farm.submit("photo.jpg", "zoom in", seconds=10, seed=7)
    for told in job.follow():
        print(f"{told.fraction:.0%} {told.waiting_for}")
    video = job.wait()                                   # at once, for it has ended
    takes = [job.wait() for job in farm.sweep("photo.jpg", "zoom in", seeds=range(4), preview=True)]

``with Farm.start() as farm:`` keeps a farm up on this machine for as long as the block lasts. In asyncio the
same is called ``render_async`` and ``AsyncFarm``. ``help(Options)`` tells what may be asked for,
``help(Farm)`` and ``help(Job)`` what a farm and a job can do.

What was wrong is raised as a ``FarmError``: ``InvalidInput`` (the request will never work), ``CannotRun``
(not here), ``JobFailed`` (it stopped; what is done is kept), each with one line that says what to do.

The door of Python alone: nothing of the other rooms enters here, and it may use all of them.
"""

from __future__ import annotations

from farm.errors import CannotRun, FarmError, InvalidInput, JobFailed
from farm.version import VERSION as __version__
from reelfarm.asynchronous import AsyncFarm, AsyncJob, render_async
from reelfarm.farm import Farm, Job, Progress
from reelfarm.here import render
from reelfarm.options import Options
from reelfarm.video import Video

__all__ = [
    "AsyncFarm",
    "AsyncJob",
    "CannotRun",
    "Farm",
    "FarmError",
    "InvalidInput",
    "Job",
    "JobFailed",
    "Options",
    "Progress",
    "Video",
    "__version__",
    "render",
    "render_async",
]
