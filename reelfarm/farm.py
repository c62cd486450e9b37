"""A farm that is up, and its jobs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Any, NamedTuple, Self

from typing_extensions import Unpack

from farm.client import FarmClient, find_farm
from farm.errors import CannotRun, JobFailed
from farm.state import State, apply, event_adapter, refusal
from reelfarm.options import Inputs, Options, job_options, paths_of
from reelfarm.started import ended, started
from reelfarm.video import Video


class Progress(NamedTuple):
    """How far a job is."""

    #: Of its work, 0 to 1.
    fraction: float
    #: Segments that are done, and all of them.
    segments_done: int
    segments: int
    #: What it stands still for; empty while something of it runs.
    waiting_for: str


class Job:
    """One video that was asked for. It goes on by itself, whatever becomes of this object or this program."""

    def __init__(self, client: FarmClient, job_id: str) -> None:
        self._client = client
        #: As ``farm jobs`` lists it.
        self.id = job_id

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def summary(self) -> dict[str, Any]:
        """The job in a line, as ``GET /jobs/{id}`` answers: status, progress, eta_s, reason, waiting_for."""
        return self._client.job(self.id)

    @property
    def status(self) -> str:
        """``running``, ``succeeded``, ``failed`` or ``cancelled``."""
        return str(self.summary()["status"])

    def follow(self) -> Iterator[Progress]:
        """How far it is, whenever that has changed, until it has ended. A farm that is away is waited for."""
        state, told = State(), Progress(0.0, 0, 0, "")
        for _, data in self._client.events(self.id, lost=lambda _: None):
            now = _after(data, state, told)
            if now != told:
                told = now
                yield told

    def wait(self, path: str | os.PathLike[str] | None = None, *, replace: bool = False) -> Video:
        """Wait until it has ended; its video, which is saved at ``path`` where one is given.

        Raises:
            JobFailed: it failed or was cancelled; the message says why and how it goes on.
        """
        for _ in self.follow():
            pass
        return self.ended(path, replace=replace)

    def ended(self, path: str | os.PathLike[str] | None = None, *, replace: bool = False) -> Video:
        """As ``wait``, of a job that has ended."""
        summary = self.summary()
        if summary["status"] != "succeeded":
            why = summary["reason"] or f"`farm retry {self.id}` continues it"
            raise JobFailed(f"{self.id} is {summary['status']}: {why}")
        video = self.video()
        return video if path is None else _saved(video, path, replace)

    def video(self) -> Video:
        """Its video, finished before."""

        def put(place: Path, replace: bool) -> Path:
            return self._client.download(self.id, "video.mp4", place, replace=replace)

        return Video(self.id, self.report(), None, put)

    def report(self) -> dict[str, Any]:
        """Its story: settings, segments with their attempts, seams, workers, totals."""
        return self._client.report(self.id)

    def cancel(self) -> None:
        """Stop it; what is done is kept."""
        self._client.cancel(self.id)

    def retry(self) -> None:
        """Continue it after it failed, was cancelled or waited; what is done is kept."""
        self._client.retry(self.id)

    def rerender(self, start: int, end: int) -> list[str]:
        """Render frames [start, end) again, with other noise; the ids of the segments that are."""
        return self._client.rerender(self.id, start, end)

    def delete(self) -> None:
        """Forget it and remove its files, once it has ended."""
        self._client.delete(self.id)


def _saved(video: Video, path: str | os.PathLike[str], replace: bool) -> Video:
    return Video(video.job_id, video.report, video.save(path, replace=replace), video._put)


def _after(data: dict[str, Any], state: State, told: Progress) -> Progress:
    """How far a job is after an event of its stream, where it was ``told`` before; ``state`` takes it in."""
    if data["type"] == "progress":
        return told._replace(fraction=data["progress"], waiting_for=data["waiting_for"])
    at = data.pop("at")
    event = event_adapter.validate_python(data)
    if refusal(state, event):
        return told
    apply(state, event, at)
    job = next(iter(state.jobs.values()), None)
    if job is None:
        return told
    done, count = job.num_done, len(job.tasks)
    fraction = done / count if job.status != "running" else max(told.fraction, done / count)
    return told._replace(fraction=fraction, segments_done=done, segments=count)


class Farm:
    """A farm that is up: on this machine, or elsewhere.

    Args:
        url: Where it is, such as ``http://192.168.1.10:8470`` or ``192.168.1.10:8470``; None: the one that is
            up here.
        key: An API key (``farm keys create``); None: ``$REELFARM_TOKEN``, or that of your own farm.
        state: State folder of a farm on this machine; None: ``$REELFARM_STATE``, or the usual one.

    Raises:
        CannotRun: none is up, or none answers there.
        NotAllowed: it wants another key (from any call).
    """

    def __init__(
        self, url: str | None = None, *, key: str | None = None, state: str | os.PathLike[str] | None = None
    ) -> None:
        token = key or os.environ.get("REELFARM_TOKEN") or None
        client = find_farm(url, token, None if state is None else Path(state))
        if client is None:
            raise CannotRun("no farm is up here; start one with `farm up` or Farm.start(), or name its url")
        self._client: FarmClient = client
        self._process: Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        *,
        workers: str | None = None,
        vram_limit: str | None = None,
        state: str | os.PathLike[str] | None = None,
    ) -> Farm:
        """Start a farm on this machine, as ``farm up`` does; it ends with ``close`` or the ``with`` block.

        Its jobs are kept, and go on when a farm is up in its state folder again.

        Args:
            workers: CPU workers with these memory budgets, such as "12GiB,8GiB"; None: the cards, or the CPU.
            vram_limit: What every worker is capped at, such as "8GiB", or each card: "8GiB,11GiB".
            state: Its state folder; None: ``$REELFARM_STATE``, or the usual one.

        Raises:
            CannotRun: it does not start; another works in the state folder.
        """
        process, url, token = started(workers, vram_limit, None if state is None else Path(state))
        farm = cls(url, key=token)
        farm._process = process
        return farm

    @property
    def url(self) -> str:
        return self._client.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, where ``start`` started it; any other is left alone, and its videos can still be read."""
        if self._process is not None:
            ended(self._process)
            self._process = None

    def submit(
        self, inputs: Inputs = (), prompt: str | Sequence[str] = "", **options: Unpack[Options]
    ) -> Job:
        """Start a job.

        Args:
            inputs: An image, several images (a storyboard), or a video to restyle: paths; none: the prompt
                alone, for a model that takes ``text_alone``.
            prompt: What should be seen: one for all inputs, or one for each.
            options: See ``help(reelfarm.Options)``.

        Raises:
            InvalidInput: a file or an option is wrong; the message says which, and what to do.
            CannotRun: no worker can hold it; the message names settings that fit.
        """
        return self.begin(paths_of(inputs), job_options(prompt, options))

    def plan(
        self, inputs: Inputs = (), prompt: str | Sequence[str] = "", **options: Unpack[Options]
    ) -> dict[str, Any]:
        """What ``submit`` would do: ``plan`` (with ``notes`` of what was chosen or changed) and ``quote``.

        The quote tells ``predicted_s``, ``cost`` and which worker would render what. Nothing is started.
        """
        return self._client.plan(paths_of(inputs), job_options(prompt, options))

    def sweep(
        self,
        inputs: Inputs = (),
        prompt: str | Sequence[str] = "",
        *,
        seeds: Iterable[int],
        **options: Unpack[Options],
    ) -> list[Job]:
        """Start a job for each seed, to choose from; ``preview=True`` makes them quick."""
        chosen = job_options(prompt, options)
        paths = paths_of(inputs)
        return [self.begin(paths, {**chosen, "seed": seed}) for seed in seeds]

    def begin(self, paths: Sequence[Path], options: Mapping[str, Any]) -> Job:
        """``submit`` with files and the fields of a request as the farm takes them."""
        return Job(self._client, self._client.submit(paths, options)["id"])

    def job(self, job_id: str) -> Job:
        """One of its jobs.

        Raises:
            NotFound: there is none of that id.
        """
        return Job(self._client, self._client.job(job_id)["id"])

    def jobs(self) -> list[Job]:
        """All of its jobs, the newest first."""
        return [Job(self._client, job["id"]) for job in self._client.jobs()]

    def nodes(self) -> list[dict[str, Any]]:
        """Its machines with their workers, as ``GET /nodes`` answers."""
        return self._client.nodes()
