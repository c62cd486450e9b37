"""Stage three: the transformer learns the flow from noise to clips, given some of their frames, a prompt."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.architecture import new_transformer, sigmas_of
from models.tiny_wan.recipe.asked import with_rate
from models.tiny_wan.recipe.clips import Batch, ClipMaker, latent_mask
from models.tiny_wan.recipe.measure import HeldOutClip, psnr
from models.tiny_wan.recipe.scenes import Shape
from models.tiny_wan.recipe.text import LENGTH, padded
from models.tiny_wan.recipe.trainer import Trainer, optimizers_of

STEPS = 4
#: Shapes at least so frequent are compiled.
COMPILED_SHARE = 0.03
#: So many sigmas are among those that the steps start from; the others are drawn uniform and shifted so far
#: towards noise, where the motion is decided.
VISITED_SHARE, TRAINING_SHIFT = 0.7, 2.5
#: A batch is filmed and encoded once and learnt from about so often, with other noise each time, in turn with
#: this many before it.
USES_OF_A_BATCH, BATCHES_KEPT = 4, 4


@dataclass(frozen=True)
class TransformerStage:
    """As ``VaeStage``; shapes are drawn by weight, but only the first until ``from_done`` of the stage."""

    minutes: float
    shapes: tuple[tuple[Shape, float], ...]
    from_done: float = 0.25
    #: From this share of the stage on it learns where its own steps lead it, not on clips with noise.
    own_from_done: float = 0.93
    muon_rate: float = 0.02
    rate: float = 1e-3
    warmup_steps: int = 60
    decay: float = 0.65


def flow_loss(
    transformer: Any,
    now: torch.Tensor,
    latents: torch.Tensor,
    told: torch.Tensor,
    text: torch.Tensor,
    weight: torch.Tensor,
    sigma: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error of the velocity that leads from ``now`` to the clips, weighted; and the velocity made.

    ``now`` and ``latents`` (N, z, L, h, w); ``told`` (N, 4 + z, L, h, w) is mask and condition; ``weight``
    (N, 1 or z, L, h, w); sigma (N,) is the level of noise of ``now``, 1 is noise alone.
    """
    velocity = transformer(torch.cat([now, told], 1), sigma * 1000, text, return_dict=False)[0].float()
    squared = (velocity - (now - latents) / sigma[:, None, None, None, None]).square()
    return (squared * weight).mean(), velocity.detach()


def random_sigmas(count: int, visited: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(count,) levels of noise to learn at, most of them among ``visited``."""
    uniform, chance = torch.rand(2, count, generator=generator, device=generator.device)
    shifted = TRAINING_SHIFT * uniform / (1 + (TRAINING_SHIFT - 1) * uniform)
    return torch.where(chance < VISITED_SHARE, visited[(uniform * len(visited)).long()], shifted)


@torch.no_grad()
def generate(
    transformer: Any,
    condition: torch.Tensor,
    mask: torch.Tensor,
    text: torch.Tensor,
    noise: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Latents (N, z, L, h, w) from noise in Euler steps without guidance."""
    latents, sigmas = noise, sigmas_of(steps)
    for now, then in itertools.pairwise(sigmas):
        rows = torch.cat([latents, mask, condition], 1)
        time_ = torch.full((len(noise),), now * 1000, device=noise.device)
        with torch.autocast(noise.device.type, torch.bfloat16, enabled=noise.is_cuda):
            velocity = transformer(rows, time_, text, return_dict=False)[0].float()
        latents = latents + (then - now) * velocity
    return latents


class HeldOutTests:
    """Held-out clips made from their first frame, both ends, and five frames at both ends."""

    KNOWN: ClassVar = {"first": (1, 0), "ends": (1, 1), "clips": (5, 5)}

    def __init__(
        self, clips: list[HeldOutClip], maker: ClipMaker, tokenizer: Any, prompts: list[str]
    ) -> None:
        self.clips, self.maker, self.vae, device = clips, maker, maker.vae, maker.device
        self.frames = torch.stack([clip.frames for clip in clips]).to(device)
        self.seen = torch.stack([clip.seen for clip in clips])[:, None]
        texts = [with_rate(prompt, clip.fps) for prompt, clip in zip(prompts, clips, strict=True)]
        ids = padded(tokenizer(texts, truncation=True, max_length=LENGTH).input_ids, LENGTH).to(device)
        self.text = maker.prompts.embed(ids)
        self.noise = torch.randn(
            self._latents(self.frames).shape, generator=torch.Generator().manual_seed(7)
        ).to(device)
        self._alone: torch.Tensor | None = None

    @torch.no_grad()
    def _latents(self, frames: torch.Tensor) -> torch.Tensor:
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=frames.is_cuda):
            mean = torch.cat([whole_clip.encode(self.vae, part)[0] for part in frames.split(5)])
        return (mean - self.maker.mean) / self.maker.std

    @torch.no_grad()
    def made(self, transformer: Any, known: str, steps: int = STEPS) -> torch.Tensor:
        """(N, 3, F, H, W) on the host."""
        first, last = self.KNOWN[known]
        told = torch.zeros(len(self.clips), self.frames.shape[2], device=self.frames.device)
        told[:, :first] = 1
        told[:, told.shape[1] - last :] = 1
        condition = self._latents(self.frames * told[:, None, :, None, None])
        mask = latent_mask(told)[..., None, None].expand(-1, -1, -1, *condition.shape[-2:])
        parts = [
            generate(transformer, c, m, t, n, steps)
            for c, m, t, n in zip(
                condition.split(5), mask.split(5), self.text.split(5), self.noise.split(5), strict=True
            )
        ]
        return self.decoded(torch.cat(parts))

    @torch.no_grad()
    def decoded(self, latents: torch.Tensor) -> torch.Tensor:
        pixels = latents * self.maker.std + self.maker.mean
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.is_cuda):
            return torch.cat([whole_clip.decode(self.vae, part).cpu() for part in pixels.split(5)]).clamp(
                -1, 1
            )

    def figures(self, transformer: Any, steps: int = STEPS) -> dict[str, float]:
        """PSNR in view to the true clip, mean over clips, and of the autoencoder alone in the same places."""
        found = {}
        true = self.frames.cpu()
        if self._alone is None:
            self._alone = self.decoded(self._latents(self.frames))
        for known in self.KNOWN:
            made = self.made(transformer, known, steps)
            where = self.seen if known == "first" else torch.ones_like(self.seen)
            for name, clips in ((known, made), (f"{known}_autoencoder", self._alone)):
                each = [
                    psnr(m[:, 1:], t[:, 1:], w[:, 1:]) for m, t, w in zip(clips, true, where, strict=True)
                ]
                found[f"{name}_db"] = round(sum(each) / len(each), 3)
        return found


class TransformerTrainer(Trainer):
    """The training state of one process."""

    name = "transformer"

    def __init__(
        self,
        stage: TransformerStage,
        clips: ClipMaker,
        tests: HeldOutTests,
        *,
        rank: int,
        world: int,
        seed: int,
        fast: bool,
        make: Callable[[], Any] = new_transformer,
    ) -> None:
        self.stage, self.clips, self.tests = stage, clips, tests
        self.minutes, self.warmup_steps, self.decay = stage.minutes, stage.warmup_steps, stage.decay
        torch.manual_seed(seed)
        transformer = make().float().to(clips.device)
        torch.nn.init.zeros_(transformer.proj_out.weight)
        torch.nn.init.zeros_(transformer.proj_out.bias)
        vectors = ("patch_embedding", "proj_out", "condition_embedder", "scale_shift")
        optimizers = optimizers_of(transformer, muon_rate=stage.muon_rate, rate=stage.rate, but=vectors)
        super().__init__(transformer, optimizers, rank=rank, world=world)
        self.generator = torch.Generator(self.device).manual_seed(seed + 31 * rank + 6)
        self.rng = random.Random(seed)  # the same in every process: they draw the same shapes
        # An error counts as in the latents' own scale, which is about what it does to pixels.
        self.channels = clips.std.square() / clips.std.square().mean()
        self.levels = torch.tensor(sigmas_of(STEPS), device=self.device)
        self.visited = self.levels[:-1]
        self._kept: dict[Shape, deque[Batch]] = defaultdict(lambda: deque(maxlen=BATCHES_KEPT))
        self._under_way: dict[Shape, tuple[Batch, torch.Tensor]] = {}
        self._compiled = {shape for shape, weight in stage.shapes if weight >= COMPILED_SHARE}
        self._loss = torch.compile(flow_loss, dynamic=False) if fast else flow_loss

    def shape(self) -> Shape:
        shapes = self.stage.shapes if self.done >= self.stage.from_done else self.stage.shapes[:1]
        return self.rng.choices([s for s, _ in shapes], [weight for _, weight in shapes])[0]

    def learn(self, shape: Shape) -> torch.Tensor:
        """The losses of some steps."""
        if self.done < self.stage.own_from_done:
            return self._from_noised(shape, self.clips.make(shape))
        kept = self._kept[shape]
        if len(kept) != 1:  # begins, or its second time is over
            kept.clear()
            kept.append(self.clips.make(shape))
            return self._from_own_steps(shape, kept[0])
        return self._from_own_steps(shape, kept.pop())

    def _from_noised(self, shape: Shape, new: Batch) -> torch.Tensor:
        """From clips with noise of any level, kept for some steps."""
        kept, losses = self._kept[shape], []
        kept.append(new)
        for _ in range(USES_OF_A_BATCH):
            batch = self.rng.choice(kept)
            sigma = random_sigmas(shape.batch, self.visited, self.generator)
            level = sigma[:, None, None, None, None]
            now = level * self._noise(batch.latents) + (1 - level) * batch.latents
            losses.append(self._step(shape, batch, now, sigma)[0])
        return torch.stack(losses)

    def _from_own_steps(self, shape: Shape, new: Batch) -> torch.Tensor:
        """From where the model's own steps lead it. Of the clips under way a quarter is at each step: as one
        arrives, new ones start in its place.
        """
        losses, place = [], torch.arange(shape.batch, device=self.device)
        if shape not in self._under_way:
            level = self.levels[place % STEPS][:, None, None, None, None]
            now = level * self._noise(new.latents) + (1 - level) * new.latents
            self._under_way[shape] = Batch(*(values.clone() for values in vars(new).values())), now
        batch, now = self._under_way[shape]
        for turn in range(STEPS):
            starting = slice(-turn % STEPS, None, STEPS)
            for ours, fresh in zip(vars(batch).values(), vars(new).values(), strict=True):
                ours[starting] = fresh[starting]
            now[starting] = self._noise(now[starting])
            at = (place + turn) % STEPS
            # By the square of its level the last step would have all the say.
            loss, velocity = self._step(shape, batch, now, self.levels[at], self.levels[at])
            now += (self.levels[at + 1] - self.levels[at])[:, None, None, None, None] * velocity
            losses.append(loss)
        return torch.stack(losses)

    def _step(
        self,
        shape: Shape,
        batch: Batch,
        now: torch.Tensor,
        sigma: torch.Tensor,
        counts: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        told, weight = torch.cat([batch.mask, batch.condition], 1), batch.weight * self.channels
        if counts is not None:
            weight = weight * counts[:, None, None, None, None]
        with self.autocast():
            # Compiling takes longer than the few steps on the rarer shapes are worth.
            loss_of = self._loss if shape in self._compiled else flow_loss
            loss, velocity = loss_of(self.model, now, batch.latents, told, batch.text, weight, sigma)
        self.update(loss)
        return loss.detach(), velocity

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.generator, device=self.device)

    def figures(self, recent: torch.Tensor) -> dict[str, Any]:
        return {"loss": round(float(recent.mean()), 5), **self.tests.figures(self.model)}
