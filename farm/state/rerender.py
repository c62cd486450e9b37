"""What of a job is rendered again. Pure but for ``reopen``, which is how its event is applied.

A segment that is rendered again gets other noise, and so does whatever starts from it, for as long as the
chain goes on. The segments between stay as they are: only their seams to new neighbours are made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from farm.errors import InvalidInput
from farm.state.events import Artifact
from farm.state.state import Job, Task


def to_rerender(job: Job, start: int, end: int) -> list[Task]:
    """The tasks that have to be done again for other frames in [start, end), in plan order.

    Finished segments that show one of the frames, and what was made from those or is being made. A segment
    that still renders and starts from none of them is left alone.

    Raises:
        InvalidInput: no such frames, or none of them is rendered.
    """
    num_frames = job.plan.num_frames
    if not 0 <= start < end <= num_frames:
        raise InvalidInput(
            f"frames {start} to {end} are asked for; expected 0 <= start < end <= {num_frames}", param="start"
        )
    shown = [s.id for s in job.plan.final_segments if s.start < end and s.end > start]
    waiting = [task_id for task_id in shown if job.tasks[task_id].status == "done"]
    if not waiting:
        raise InvalidInput(f"no segment of frames {start} to {end - 1} is rendered yet", param="start")
    again: set[str] = set()
    while waiting:
        task_id = waiting.pop()
        if task_id not in again:
            again.add(task_id)
            waiting += job.dependents.get(task_id, ())
    tasks = (job.tasks[task_id] for task_id in job.order if task_id in again)
    return [task for task in tasks if task.status in ("done", "running")]


def lost_results(job: Job, stored: Callable[[Artifact], bool]) -> list[tuple[Task, int]]:
    """The finished tasks whose kept take is not ``stored``, and that take, in plan order."""
    done = ((job.tasks[task_id], job.kept_take(job.tasks[task_id])) for task_id in job.order)
    return [(task, take) for task, take in done if task.status == "done" and not stored(task.artifacts[take])]


def reopen(job: Job, takes: dict[str, int]) -> None:
    """Make ``JobReopened`` happen: these finished segments are rendered again, as these takes."""
    reopened = [job.tasks[task_id] for task_id in takes]
    job.num_done -= len(reopened)
    for task in reopened:
        task.status = "waiting"
        task.take = takes[task.id]
        task.failures.clear()
    for task in reopened:
        task.waits_for = job.undone(task.segment.depends_on)
        job.queue(task)
        for dependent_id in job.dependents.get(task.id, ()):
            job.wait_again(job.tasks[dependent_id], task.id)
    _measure_anew(job, takes)


def _measure_anew(job: Job, takes: dict[str, int]) -> None:
    """Forget the seams of the reopened segments, and of what follows one of them."""
    for before, segment in pairwise((None, *job.plan.final_segments)):
        seam = job.seams.get(segment.id) if segment else None
        if segment is None or seam is None:
            continue
        if segment.id in takes:
            del job.seams[segment.id]
            job.seam_changed(segment.id)
        elif before and before.id in takes:
            task = job.tasks[segment.id]
            if seam.accepted_take is not None:
                task.take = seam.accepted_take
                seam.keeps_segment = True
            seam.measured.clear()
            seam.accepted_take = None
            job.seam_changed(segment.id)
