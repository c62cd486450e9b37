"""What the table knows of a model family: which folders are its, and how its specs and engines are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from farm.capabilities import OWN_WEIGHTS, Conditioning, EngineSpec, Licence, Weights, Worker
from nodes.engines.engine import Attentions, Engine
from nodes.engines.folders import Layout, OnBytes, cached_folder, model_folder, sources_of

_MAIN = "main"
APACHE = Licence(name="Apache License 2.0", url="https://www.apache.org/licenses/LICENSE-2.0")


@dataclass(frozen=True)
class HubModel:
    """A hub repository that may be loaded, with the commit that is loaded and the files that are wanted."""

    repository: str
    #: None: none is known, so that what ``main`` is now is taken.
    revision: str | None
    layout: Layout
    licence: Licence
    #: The components that weight files may take the place of (see ``sources_of``).
    denoisers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.repository} at {(self.revision or _MAIN)[:12]}"

    def is_here(self, weights: Weights = OWN_WEIGHTS) -> bool:
        """Whether its files are on this disk, but for what ``weights`` take the place of."""
        return self.cached(weights) is not None

    def cached(self, weights: Weights = OWN_WEIGHTS) -> Path | None:
        """Its local folder, if its files are on this disk."""
        return cached_folder(self.repository, self.revision or _MAIN, layout=self.layout_of(weights))

    def folder(self, weights: Weights = OWN_WEIGHTS, on_bytes: OnBytes | None = None) -> Path:
        """Its local folder, fetched when it is not here (see ``model_folder``), but for what ``weights`` take
        the place of."""
        layout, revision = self.layout_of(weights), self.revision or _MAIN
        return model_folder(self.repository, revision, layout=layout, on_bytes=on_bytes)

    def layout_of(self, weights: Weights) -> Layout:
        """The files of it that are needed beside these weights."""
        sources = sources_of(weights, self.denoisers, str(self))
        return self.layout.without(name for name, source in sources.items() if source.file)


class CreateEngine(Protocol):
    """Makes an engine, not loaded yet; the place to import torch."""

    def __call__(
        self,
        spec: EngineSpec,
        folder: Path,
        worker: Worker,
        *,
        cpu_threads: int,
        attention: Attentions,
    ) -> Engine: ...


def claims_nothing(_: Path) -> bool:
    """The claim of a family whose models are asked for by name alone."""
    return False


@dataclass(frozen=True)
class Family:
    """One line of the table. Everything but ``create`` runs without torch."""

    #: As ``EngineSpec.engine`` says it: the sub-package under ``nodes/engines``.
    name: str
    #: What its models can be conditioned on, told before any file of theirs is here.
    takes: frozenset[Conditioning]
    #: (folder, name the farm knows the model by, pinned commit or None, its weights as ``found_here`` gives
    #: them) -> spec.
    read_spec: Callable[[Path, str, str | None, Weights], EngineSpec]
    create: CreateEngine
    #: Whether a folder, or a single file, is of this family. Asked of anything a user names, whatever is in
    #: it: the answer comes from its headers and configs, and what cannot be read is not claimed.
    claims: Callable[[Path], bool] = claims_nothing
    #: The pipeline classes its folders name: for the words of a refusal.
    pipelines: tuple[str, ...] = ()
    #: Its models that have a name: with the folder that comes with the farm (of a model that is drawn, not
    #: denoised, its code), or the hub repository.
    models: Mapping[str, Path | HubModel] = field(default_factory=dict)
    #: Whether its models run with weight files and LoRAs of others, and in fewer bits.
    takes_weights: bool = False
    #: Whether its models are listed, and others than the farm's owner may ask for them.
    listed: bool = True
    #: Whether it runs on PyTorch, whose memory on a card is then set up and capped.
    uses_torch: bool = True
