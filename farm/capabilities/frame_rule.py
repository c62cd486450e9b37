"""Which numbers of frames a model renders, and how its latents stand for them. Pure."""

from __future__ import annotations

from farm.values import Value


class FrameRule(Value):
    """``num_frames = step * k + remainder`` within limits.

    A causal video VAE makes latent 0 of one frame and every other of ``frames_per_latent``: its windows have
    ``frames_per_latent * k + 1`` frames and ``k + 1`` latents. Windows that overlap by whole latents start on
    multiples of ``frames_per_latent``: then latent j of one and latent i of the other stand for the same
    frames, for all but the one-frame latent 0.
    """

    #: 1: a latent a frame.
    frames_per_latent: int = 1
    step: int = 1
    remainder: int = 0
    min_frames: int = 1
    max_frames: int = 64

    @classmethod
    def causal(cls, frames_per_latent: int, *, min_frames: int = 1, max_frames: int) -> FrameRule:
        """The rule of a model over a causal video VAE."""
        return cls(
            frames_per_latent=frames_per_latent,
            step=frames_per_latent,
            remainder=1 % frames_per_latent,
            min_frames=min_frames,
            max_frames=max_frames,
        )

    def allows(self, num_frames: int) -> bool:
        """Whether a window of exactly ``num_frames`` frames can be rendered."""
        in_limits = self.min_frames <= num_frames <= self.max_frames
        return in_limits and (num_frames - self.remainder) % self.step == 0

    def at_least(self, num_frames: int) -> int:
        """The shortest window that holds ``num_frames`` frames; past ``max_frames`` where they are more."""
        wanted = max(num_frames, self.min_frames)
        return wanted + (self.remainder - wanted) % self.step

    def allowed(self) -> range:
        """Every length a window may have, shortest first."""
        return range(self.at_least(self.min_frames), self.max_frames + 1, self.step)

    def nearest(self, num_frames: int) -> int:
        """The length nearest to ``num_frames`` that a window may have."""
        return min(self.allowed(), key=lambda n: abs(n - num_frames))

    def num_latents(self, num_frames: int) -> int:
        """Latents of a window of so many frames."""
        return (num_frames - 1) // self.frames_per_latent + 1

    def overlap_frames(self, latents: int) -> int:
        """Frames that windows share which share so many latents (beside the one-frame one, where causal)."""
        return latents if self.frames_per_latent == 1 else latents * self.frames_per_latent + 1

    def clip_frames(self, latents: int) -> int:
        """Frames of a clip of so many latents, the first of one frame where causal."""
        return latents if self.frames_per_latent == 1 else (latents - 1) * self.frames_per_latent + 1

    def allows_overlap(self, num_frames: int) -> bool:
        """Whether windows that share so many frames start on the VAE's stride."""
        return self.frames_per_latent == 1 or num_frames % self.frames_per_latent == 1

    def form(self) -> str:
        """The rule in words, for refusals: ``5 to 33 in the form 4k+1``."""
        form = f" in the form {self.step}k+{self.remainder}" if self.step > 1 else ""
        return f"{self.min_frames} to {self.max_frames}{form}"
