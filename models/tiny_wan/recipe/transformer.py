"""Stage three: the transformer learns the flow from noise to clips, given some of their frames, a prompt."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from models.tiny_wan.recipe import whole_clip
from models.tiny_wan.recipe.architecture import SPATIAL, TEMPORAL, new_transformer, sigmas_of
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
#: Clips count by the logarithms of their errors, as in decibels; errors far below these teach no more.
LATENT_FLOOR, PIXEL_FLOOR = 0.01, 1e-3
#: What no known frame shows, beside what one does; and latents beside the pixels made of them.
UNSEEN_SHARE, LATENTS_SHARE = 0.3, 0.3


@dataclass(frozen=True)
class TransformerStage:
    """As ``VaeStage``; shapes are drawn by weight, but only the first until ``from_done`` of the stage."""

    minutes: float
    shapes: tuple[tuple[Shape, float], ...]
    from_done: float = 0.25
    #: From this share of the stage on it learns where its own steps lead it, not on clips with noise.
    own_from_done: float = 0.7
    #: And from here on, in the first shape, what is made in the last step counts as pixels.
    pixels_from_done: float = 0.85
    muon_rate: float = 0.02
    rate: float = 1e-3
    warmup_steps: int = 60
    decay: float = 0.65


def clip_errors(
    transformer: Any,
    now: torch.Tensor,
    latents: torch.Tensor,
    told: torch.Tensor,
    text: torch.Tensor,
    seen: torch.Tensor,
    channels: torch.Tensor,
    sigma: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean squared errors of each clip (N,), where known frames show it and elsewhere, and the clips made.

    ``now``, ``latents`` and what is made (N, z, L, h, w); ``told`` (N, 4 + z, L, h, w) is mask and condition;
    ``seen`` (N, 1, L, h, w) is 1 where known frames show what is there; ``channels`` (1, z, 1, 1, 1) is what
    each counts; sigma (N,) is the level of noise of ``now``, 1 is noise alone.
    """
    velocity = transformer(torch.cat([now, told], 1), sigma * 1000, text, return_dict=False)[0].float()
    clips = now - sigma[:, None, None, None, None] * velocity
    squared = ((clips - latents).square() * channels).mean(1)
    return *_means(squared, seen[:, 0]), clips


def pixel_errors(
    vae: Any, latents: torch.Tensor, frames: torch.Tensor, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``clip_errors``, of pixels: what ``vae`` makes of ``latents``, to all but the first of ``frames``
    (N, 3, F, H, W).
    """
    return frame_errors(whole_clip.decode(vae, latents), frames, seen)


def frame_errors(
    drawn: torch.Tensor, frames: torch.Tensor, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``pixel_errors``, of frames (N, 3, F, H, W) that were ``drawn``."""
    squared = (drawn - frames).square().mean(1)[:, 1:]
    cells = F.avg_pool2d(squared, SPATIAL).unflatten(1, (-1, TEMPORAL)).mean(2)
    return _means(cells, seen[:, 0, 1:])


def _means(squared: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of (N, L, h, w), where it is seen (a fifth at least is divided by) and where not."""
    inside = (squared * seen).mean((1, 2, 3)) / seen.mean((1, 2, 3)).clamp(min=0.2)
    return inside, (squared * (1 - seen)).mean((1, 2, 3))


def log_errors(errors: tuple[torch.Tensor, torch.Tensor], floor: float) -> torch.Tensor:
    """(N,) logarithms of the errors: half the error is worth the same in a good clip and in a bad one."""
    inside, outside = errors
    return torch.log(inside + floor) + UNSEEN_SHARE * torch.log(outside + 10 * floor)


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
        self.tokenizer = tokenizer
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
        self._errors = torch.compile(clip_errors, dynamic=False) if fast else clip_errors
        self._pixels = torch.compile(pixel_errors, dynamic=False) if fast else pixel_errors

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
            self._under_way[shape] = type(new)(*(values.clone() for values in vars(new).values())), now
        batch, now = self._under_way[shape]
        as_pixels = shape == self.stage.shapes[0][0] and self.done >= self.stage.pixels_from_done
        for turn in range(STEPS):
            starting = slice(-turn % STEPS, None, STEPS)
            for ours, fresh in zip(vars(batch).values(), vars(new).values(), strict=True):
                ours[starting] = fresh[starting]
            now[starting] = self._noise(now[starting])
            at = (place + turn) % STEPS
            last = place[STEPS - 1 - turn :: STEPS] if as_pixels else None
            loss, clips = self._step(shape, batch, now, self.levels[at], last)
            share = (self.levels[at + 1] / self.levels[at])[:, None, None, None, None]
            now.lerp_(clips, 1 - share)
            losses.append(loss)
        return torch.stack(losses)

    def _step(
        self,
        shape: Shape,
        batch: Batch,
        now: torch.Tensor,
        sigma: torch.Tensor,
        last: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the clips it takes ``now`` for; those at the places ``last`` are judged as pixels."""
        told = torch.cat([batch.mask, batch.condition], 1)
        with self.autocast():
            # Compiling takes longer than the few steps on the rarer shapes are worth.
            errors_of = self._errors if shape in self._compiled else clip_errors
            *errors, clips = errors_of(
                self.model, now, batch.latents, told, batch.text, batch.seen, self.channels, sigma
            )
            each = log_errors((errors[0], errors[1]), LATENT_FLOOR)
            loss = each.mean()
            if last is not None and len(last):
                made = clips[last] * self.clips.std + self.clips.mean
                drawn = self._pixels(self.clips.vae, made, batch.frames[last], batch.seen[last])
                instead = log_errors(drawn, PIXEL_FLOOR) - (1 - LATENTS_SHARE) * each[last]
                loss = loss + instead.sum() / len(each)
        self.update(loss)
        return loss.detach(), clips.detach()

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.generator, device=self.device)

    def figures(self, recent: torch.Tensor) -> dict[str, Any]:
        return {"loss": round(float(recent.mean()), 5), **self.tests.figures(self.model)}
