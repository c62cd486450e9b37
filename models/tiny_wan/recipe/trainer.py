"""What the long stages share: the clock, the rates, averaged weights, and going on from what was saved."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from models.tiny_wan.recipe.scenes import Shape

AVERAGE = 0.998
#: Batches between two looks at the clock, which wait for the device.
BATCHES_AT_ONCE = 2
#: Of Newton-Schulz' iteration (Jordan et al. 2024, kellerjordan.github.io/posts/muon).
_A, _B, _C = 3.4445, -4.7750, 2.0315
MOMENTUM = 0.95
WEIGHT_DECAY = 0.01


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


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal: every matrix moves by the same amount in all its directions, which suits
    large batches. For weights of two or more dimensions; (out, ...) is seen as a matrix (out, the rest).
    """

    def __init__(self, weights: list[torch.Tensor], *, learning_rate: float) -> None:
        super().__init__(weights, {"lr": learning_rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[torch.Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[(weight.shape[0], weight.numel() // weight.shape[0])].append(weight)
            for (rows, columns), weights in by_shape.items():
                gradients = [w.grad for w in weights]
                for weight in weights:
                    if "momentum" not in self.state[weight]:
                        self.state[weight]["momentum"] = torch.zeros_like(weight)
                momenta = [self.state[w]["momentum"] for w in weights]
                torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
                ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
                moves = orthogonal(torch.stack([m.reshape(rows, columns) for m in ahead]))
                moves = moves * (max(1, rows / columns) ** 0.5)
                torch._foreach_mul_(weights, 1 - group["lr"] * WEIGHT_DECAY)
                steps = [m.view_as(w).to(w.dtype) for m, w in zip(moves.unbind(), weights, strict=True)]
                torch._foreach_add_(weights, steps, alpha=-group["lr"])


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """(N, rows, columns) to the nearest matrices whose singular values are about one."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()  # many processors have no bfloat16
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * square @ square) @ x
    return x.mT if tall else x


def average_gradients(weights: list[torch.Tensor], world: int) -> None:
    """Give every process the mean of all their gradients."""
    if world == 1:
        return
    gradients = [w.grad for w in weights if w.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat, dist.ReduceOp.AVG)
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])


def agreed(value: float, world: int, device: str) -> float:
    """The largest of all processes' values, the same in each: they stop together."""
    if world == 1:
        return value
    largest = torch.tensor(value, device=device, dtype=torch.float64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return float(largest)
