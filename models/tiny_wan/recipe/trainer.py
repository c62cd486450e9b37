"""What the long stages share: the clock, the rates, averaged weights, and going on from what was saved."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.tiny_i2v.recipe.muon import Muon
from models.tiny_i2v.recipe.vae import agreed, average_gradients
from models.tiny_wan.recipe.scenes import Shape

AVERAGE = 0.998
#: Batches between two looks at the clock, which wait for the device.
BATCHES_AT_ONCE = 2


class Trainer:
    """The training state of one process. Stages add what a batch is, what it teaches, what is measured."""

    name = ""
    minutes, warmup_steps, decay = 1.0, 60, 0.4

    def __init__(self, model: Any, optimizers: list[torch.optim.Optimizer], *, rank: int, world: int) -> None:
        self.model, self.optimizers, self.rank, self.world = model, optimizers, rank, world
        self.weights = list(model.parameters())
        self.average = [w.detach().clone() for w in self.weights]
        self.device = str(self.weights[0].device)
        self.step, self.trained_s = 0, 0.0

    def shape(self) -> Shape:
        """Of the next batches; the same in every process."""
        raise NotImplementedError

    def learn(self, shape: Shape) -> torch.Tensor:
        """Learn from one batch; what is reported of it, one or more values."""
        raise NotImplementedError

    def figures(self, recent: torch.Tensor) -> dict[str, Any]:
        """What is worth a line, of what ``learn`` returned lately and of tests."""
        raise NotImplementedError

    @property
    def done(self) -> float:
        """Share of the stage that is over."""
        return self.trained_s / (60 * self.minutes)

    def run(self, *, save: Any, log: Path | None, stop_after_s: float, every_s: float = 60) -> None:
        """Train until the stage is over or ``stop_after_s`` seconds have passed.

        ``save(trainer)`` is called now and then, in the first process. Compiling does not count as training.

        Raises:
            FloatingPointError: When the loss is no number.
        """
        began, last_said = time.monotonic(), time.monotonic()
        rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        known: set[Shape] = set()
        recent: list[torch.Tensor] = []
        while self.done < 1:
            started = time.monotonic()
            if agreed(started - began - stop_after_s, self.world, self.device) > 0:
                break
            shape = self.shape()
            for optimizer, full in zip(self.optimizers, rates, strict=True):
                for group, rate in zip(optimizer.param_groups, full, strict=True):
                    group["lr"] = rate * self._pace()
            for _ in range(BATCHES_AT_ONCE if shape in known else 1):
                recent.append(self.learn(shape).flatten())
            if not torch.isfinite(recent[-1]).all():  # waits for the device
                raise FloatingPointError(f"{self.name}, step {self.step}: the loss is not a number")
            if shape in known:
                self.trained_s = agreed(self.trained_s + time.monotonic() - started, self.world, self.device)
            elif self.rank == 0:
                print(f"{self.name} {shape}: first step {time.monotonic() - started:.0f} s", flush=True)
            known.add(shape)
            if self.rank == 0 and time.monotonic() - last_said > every_s:
                last_said = time.monotonic()
                self._report(recent, log, last_said - began)
                save(self)
                recent = []
        if self.rank == 0:
            if recent:
                self._report(recent, log, time.monotonic() - began)
            save(self)

    def update(self, loss: torch.Tensor) -> None:
        """One step down the loss, averaged over processes."""
        loss.backward()
        average_gradients(self.weights, self.world)
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(AVERAGE, self.step / (self.step + 10))
        torch._foreach_lerp_(self.average, [w.detach() for w in self.weights], 1 - keep)

    def autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")

    def _pace(self) -> float:
        """The learning rate's share of its highest value, now."""
        return min(1.0, (self.step + 1) / self.warmup_steps) * min(1.0, max(0.0, 1 - self.done) / self.decay)

    def _report(self, recent: list[torch.Tensor], log: Path | None, elapsed: float) -> None:
        with self.averaged():
            figures = self.figures(torch.cat(recent[-50:]))
        line = {
            "stage": self.name,
            "step": self.step,
            "trained_s": round(self.trained_s, 1),
            "elapsed_s": round(elapsed, 1),
            "done": round(self.done, 4),
            **figures,
        }
        print(json.dumps(line), flush=True)
        if log:
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def averaged(self) -> Swapped:
        """A context in which the model has its averaged weights."""
        return Swapped(self.weights, self.average)

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "trained_s": self.trained_s,
            "weights": [w.detach() for w in self.weights],
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; without that of the optimizers they begin afresh."""
        self.step, self.trained_s = state["step"], state["trained_s"]
        with torch.no_grad():
            for mine, given in ((self.weights, state["weights"]), (self.average, state["average"])):
                for weight, value in zip(mine, given, strict=True):
                    weight.copy_(value)
        for optimizer, kept in zip(self.optimizers, state.get("optimizers", []), strict=False):
            optimizer.load_state_dict(kept)


class Swapped:
    """Within it, weights have other values."""

    def __init__(self, weights: list[nn.Parameter], others: list[torch.Tensor]) -> None:
        self.weights, self.others = weights, others

    def __enter__(self) -> None:
        self.kept = [w.detach().clone() for w in self.weights]
        self._put(self.others)

    def __exit__(self, *_: object) -> None:
        self._put(self.kept)

    @torch.no_grad()
    def _put(self, values: list[torch.Tensor]) -> None:
        torch._foreach_copy_([w.data for w in self.weights], values)


def optimizers_of(
    model: nn.Module, *, muon_rate: float, rate: float, but: tuple[str, ...]
) -> list[torch.optim.Optimizer]:
    """Muon for matrices not named by ``but``, AdamW for the rest; AdamW for all at a ``muon_rate`` of 0."""
    matrices, rest = [], []
    for name, weight in model.named_parameters():
        is_matrix = (
            muon_rate > 0
            and weight.ndim >= 2
            and weight.shape[0] >= 16
            and weight.numel() // weight.shape[0] >= 16
        )
        (matrices if is_matrix and not any(word in name for word in but) else rest).append(weight)
    fused = next(model.parameters()).is_cuda
    adam = torch.optim.AdamW(rest, rate, betas=(0.9, 0.98), weight_decay=0.0, fused=fused)
    return [adam, Muon(matrices, learning_rate=muon_rate)] if matrices else [adam]
