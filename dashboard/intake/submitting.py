"""From a checked request to a job that runs: once for every idempotency key, whichever door it came by."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import takewhile
from pathlib import Path

from dashboard.access import Principal
from dashboard.intake.specs import Specs
from dashboard.intake.turns import Turns
from farm.errors import Conflict, InvalidInput, NotFound
from farm.planning import Outline, Plan, of_draft, outline
from farm.request import JobRequest, MediaInfo
from farm.running import Coordinator
from farm.scheduling import Quote, quote_of, standing
from farm.state import Job

MAX_KEY_CHARS = 255
#: A client that repeats a request by itself does so within this time.
RESENT_WITHIN_S = 600.0
#: Each may take some hundred MB for a moment.
PLANS_AT_ONCE = 2
#: Of one caller.
PLANS_WAITING = 30


class Submitting:
    """Starts jobs. The journal is what remembers keys: a restart forgets none."""

    def __init__(self, coordinator: Coordinator, specs: Specs) -> None:
        self._coordinator = coordinator
        self._specs = specs
        self._planning = Turns("be planned", of_one=1, of_all=PLANS_AT_ONCE, waiting=PLANS_WAITING)

    async def plan(self, request: JobRequest, principal: Principal) -> Plan:
        """The plan a request would follow; nothing is started.

        Raises:
            InvalidInput, CannotRun, NotFound: as the planner says.
            TooManyRequests: whoever asks has too many plans that wait.
        """
        await self._look_up(request)
        # A long video is planned for longer than others should wait.
        async with self._planning.one(principal.id):
            return await asyncio.to_thread(self._coordinator.plan, request)

    @asynccontextmanager
    async def quoted(self, request: JobRequest, principal: Principal) -> AsyncIterator[tuple[Plan, Quote]]:
        """The plan a request would follow, and what it would take; nothing is started.

        The turn lasts as long as the block, so that only so many plans are held.

        Raises:
            InvalidInput, CannotRun, NotFound, TooManyRequests: as ``plan`` says.
        """
        await self._look_up(request)
        ledger = self._coordinator.ledger
        async with self._planning.one(principal.id):
            made, drawn = await asyncio.to_thread(self._drawn, request)
            # The state is read here, where it changes, and the rest worked out beside it.
            here = standing(ledger.state, made, drawn, ledger.monotonic(), priority=request.priority)
            yield made, await asyncio.to_thread(quote_of, made, drawn, here)

    async def _look_up(self, request: JobRequest) -> None:
        """Have the files of the models here before anything is planned."""
        await self._specs.get(request.model, request.chosen_weights)
        if request.draft_model is not None:
            with of_draft():
                await self._specs.get(request.draft_model)

    def _drawn(self, request: JobRequest) -> tuple[Plan, Outline]:
        made = self._coordinator.plan(request)
        return made, outline(made)

    async def submit_job(
        self,
        request: JobRequest,
        principal: Principal,
        idempotency_key: str | None = None,
        *,
        resent: bool = False,
        remixed_from: str | None = None,
    ) -> tuple[Job, bool]:
        """Start a job, or find the one that the same request has started before.

        Args:
            idempotency_key: of the client's choice; one key of one principal is one job.
            resent: the client says that it repeats a request, without a key.
            remixed_from: the job this one is made from.

        Returns:
            The job, and whether it had been started before.

        Raises:
            Conflict: the key came with another request before.
            InvalidInput, CannotRun, NotFound: as the planner says, or an input is gone; nothing was started.
        """
        job_id = None if idempotency_key is None else keyed_job_id(principal, idempotency_key)
        if found := self._before(request, principal, job_id, resent):
            return found, True
        plan = await self.plan(request, principal)
        # ``submit`` finds the files stored: copying a long video would hold up the whole farm.
        storage = self._coordinator.storage
        for media in request.files:
            self._check_there(media)
            await asyncio.to_thread(storage.put_file, media.path, media.sha256)
        # From here on nothing else runs: of two such requests at once, one starts the job.
        if found := self._before(request, principal, job_id, resent):
            return found, True
        for media in request.files:
            self._check_there(media)
        started = self._coordinator.submit(
            request,
            plan=plan,
            job_id=job_id,
            submitted_by=principal.name,
            submitted_by_id=principal.id,
            remixed_from=remixed_from,
        )
        return self._coordinator.ledger.job(started), False

    def _check_there(self, media: MediaInfo) -> None:
        """
        Raises:
            NotFound: the upload or the job that an input was of was deleted meanwhile.
        """
        if not self._coordinator.storage.path(media.sha256).exists() and not media.path.exists():
            raise NotFound("an input was deleted before the job could begin; send it again", param="inputs")

    def _before(
        self, request: JobRequest, principal: Principal, job_id: str | None, resent: bool
    ) -> Job | None:
        jobs = self._coordinator.ledger.state.jobs
        if job_id is not None:
            job = jobs.get(job_id)
            if job is not None and not same_request(job.request, request):
                raise Conflict(
                    f"this Idempotency-Key started {job_id} with another request; use a fresh key",
                    param="Idempotency-Key",
                )
            return job
        if not resent:
            return None
        oldest = self._coordinator.clock() - RESENT_WITHIN_S
        for job in takewhile(lambda job: job.submitted_at >= oldest, reversed(jobs.values())):
            if job.submitted_by_id == principal.id and same_request(job.request, request):
                return job
        return None


def check_key(key: str | None) -> str | None:
    """An ``Idempotency-Key`` header as it may be used.

    Raises:
        InvalidInput: it is empty, too long, or holds more than printable ASCII.
    """
    if key is None or (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        return key
    raise InvalidInput(
        f"Idempotency-Key has {len(key)} characters, expected 1 to {MAX_KEY_CHARS} printable ones",
        param="Idempotency-Key",
    )


def keyed_job_id(principal: Principal, key: str) -> str:
    """The job of a key: the same for the same principal, at any time."""
    return "job-" + hashlib.sha256(f"{principal.id}\n{key}".encode()).hexdigest()[:12]


def same_request(one: JobRequest, other: JobRequest) -> bool:
    """Whether two requests ask for the same video; where their files lie does not matter."""
    return _placeless(one) == _placeless(other)


def _placeless(request: JobRequest) -> JobRequest:
    return request.with_files(lambda media: media.model_copy(update={"path": Path()}))
