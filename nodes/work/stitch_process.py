"""A joiner in a process of its own, on the coordinator's machine: a crash in a codec ends it, not the farm.

    python -m nodes.work.stitch_process     (JSON lines in and out)

It ends with the coordinator. What it answers is parsed, like everything that comes from another process.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections import deque
from contextlib import suppress
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from farm.running import Blob, Damaged, Published, StitchFailed, StitchOrder
from farm.values import Value

CLOSE_TIMEOUT_S = 60.0
_PR_SET_PDEATHSIG = 1
#: A seam's report is a few kilobytes.
_MAX_LINE_BYTES = 1 << 24


class _Answer(Value):
    """The end of a call: what it returned, or why it failed."""

    model_config = ConfigDict(ser_json_inf_nan="constants")  # a seam's measures may be infinite

    error: str | None = None
    #: The error is that of a segment, which another may be given for.
    damaged: bool = False
    report: dict[str, Any] | None = None
    published: Published | None = None


_answer = TypeAdapter(_Answer)


class StitchProcess:
    """A stitch session (``farm.running.cluster.StitchSession``) in a child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said: deque[str] = deque(maxlen=20)
        self._hearing = asyncio.ensure_future(self._hear())
        self._calling = asyncio.Lock()

    @classmethod
    async def open(cls, order: StitchOrder) -> StitchProcess:
        """
        Raises:
            StitchFailed: it does not begin.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "nodes.work.stitch_process",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for the coordinator
        )
        session = cls(process)
        try:
            await session._call("open", order=order.model_dump(mode="json"))
        except BaseException:
            await session._end()
            raise
        return session

    async def start(self, segment: Blob, num_frames: int) -> None:
        await self._call("start", segment=segment.model_dump(mode="json"), num_frames=num_frames)

    async def propose(self, segment: Blob, num_frames: int, overlap: int) -> dict[str, Any]:
        answer = await self._call(
            "propose", segment=segment.model_dump(mode="json"), num_frames=num_frames, overlap=overlap
        )
        return answer.report or {}

    async def accept(self) -> None:
        await self._call("accept")

    async def finish(self) -> Published:
        answer = await self._call("finish")
        assert answer.published is not None
        return answer.published

    async def close(self) -> None:
        with suppress(StitchFailed, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._call("close")
        await self._end()

    async def _call(self, name: str, **arguments: Any) -> _Answer:
        # One that is given up goes on, and the next waits for its end.
        answer = await asyncio.shield(asyncio.ensure_future(self._exchange(name, arguments)))
        if answer.error is not None:
            raise (Damaged if answer.damaged else StitchFailed)(answer.error)
        return answer

    async def _exchange(self, name: str, arguments: dict[str, Any]) -> _Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._calling:
            try:
                self._process.stdin.write(json.dumps({"call": name, **arguments}).encode() + b"\n")
                await self._process.stdin.drain()
                return _answer.validate_json(await self._process.stdout.readline())
            except (OSError, ValueError) as error:
                await asyncio.wait({self._hearing}, timeout=1.0)
                said = self._said[-1] if self._said else f"it said nothing ({type(error).__name__})"
                return _Answer(error=f"its process died: {said}")

    async def _hear(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            if text := line.decode(errors="replace").strip():
                self._said.append(text)

    async def _end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._hearing.cancel()


def main() -> None:
    from nodes.work.joiner import Joiner

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a codec prints is no answer
    joiner: Joiner | None = None

    def carried_out(asked: dict[str, Any]) -> _Answer:
        nonlocal joiner
        call = asked.pop("call")
        if call == "open":
            joiner = Joiner(StitchOrder.model_validate(asked["order"]))
            return _Answer()
        assert joiner is not None, "open comes first"
        if "segment" in asked:
            asked["segment"] = Blob.model_validate(asked["segment"])
        returned = getattr(joiner, call)(**asked)
        if isinstance(returned, Published):
            return _Answer(published=returned)
        return _Answer(report=returned)

    _end_with_parent()
    for line in sys.stdin.buffer:
        try:
            answer = carried_out(json.loads(line))
        except Exception as error:  # a joiner may fail in any way; the job says how
            text = str(error).strip() or type(error).__name__
            answer = _Answer(error=text, damaged=isinstance(error, Damaged))
        answers.write(answer.model_dump_json().encode() + b"\n")
        answers.flush()
    os._exit(0)


def _end_with_parent() -> None:
    """Be killed when the coordinator is: the next one's stitcher writes the same files."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
