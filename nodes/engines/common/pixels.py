"""Frames to the numbers a VAE reads, and back."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def vae_pixels(frame: NDArray[np.uint8], device: str = "cpu") -> torch.Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(frame.copy()).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1


def frames_of(pixels: torch.Tensor) -> torch.Tensor:
    """(F, 3, H, W) about [-1, 1] to (F, H, W, 3) uint8 on the host."""
    return _shown(pixels).cpu()


def _shown(pixels: torch.Tensor) -> torch.Tensor:
    unit = (pixels.float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


#: Chunks on their way to the host: what a device may be ahead of what was told of its progress.
_ON_THEIR_WAY = 2


class ClipOnHost:
    """The frames of a clip as they come from a device, which computes the next ones meanwhile.

    Use ``with``. Writing new host memory takes about as long as decoding a small model's frames, so a thread
    does it.

    Args:
        shape: (F, H, W) of all of them.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._frames = np.empty((*shape, 3), dtype=np.uint8)
        self._thread = ThreadPoolExecutor(1, "frames-to-host")
        self._pending: deque[Future[None]] = deque()

    def put(self, pixels: torch.Tensor, *, first: int, top: int = 0) -> None:
        """Take (n, 3, rows, W) about [-1, 1]: frames from ``first`` on, and rows of them from ``top`` on."""
        shown = _shown(pixels)
        place = self._frames[first : first + len(shown), top : top + shown.shape[1]]
        if shown.device.type != "cuda":
            place[...] = shown.cpu().numpy()
            return
        host = torch.empty(shown.shape, dtype=torch.uint8, pin_memory=True)
        host.copy_(shown, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._pending.append(self._thread.submit(_write, copied, host, place))
        while len(self._pending) > _ON_THEIR_WAY:
            self._pending.popleft().result()

    def frames(self) -> NDArray[np.uint8]:
        """(F, H, W, 3), when all are there."""
        while self._pending:
            self._pending.popleft().result()
        return self._frames

    def __enter__(self) -> ClipOnHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


def _write(copied: Any, host: torch.Tensor, place: NDArray[np.uint8]) -> None:
    copied.synchronize()
    torch.from_numpy(place).copy_(host)
