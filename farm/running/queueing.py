"""A job's place in the queue."""

from __future__ import annotations

from farm.errors import InvalidInput
from farm.request import check_priority
from farm.running.coordinator import Coordinator
from farm.state import JobPrioritized


def prioritize(coordinator: Coordinator, job_id: str, priority: int) -> None:
    """Serve a running job sooner or later than the others; what runs is not taken back.

    Raises:
        InvalidInput: it has ended, or ``priority`` is not 0 to 100.
        NotFound: there is no such job.
    """
    check_priority(priority)
    job = coordinator.ledger.job(job_id)
    if job.status != "running":
        raise InvalidInput(f"job {job_id} is {job.status}; only a running job has a place in the queue")
    coordinator.ledger.record(JobPrioritized(job_id=job_id, priority=priority))
    coordinator.dispatch()
