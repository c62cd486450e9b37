"""Models of a worker's machine: told to the farm, taken from others for an order, given to others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from farm.capabilities import Manifest, Weights
from farm.errors import CannotRun, InvalidInput
from farm.running import Order
from nodes.engines import held_models, is_here
from nodes.engines.folders import found_here, is_weights_key
from nodes.link import WorkerEnd
from nodes.model_store import (
    Holding,
    InStore,
    PieceServer,
    bring,
    forget,
    kept,
    kept_models,
    manifest_of,
    models_quota,
    recorded,
    room_bytes,
    to_drop,
)

log = logging.getLogger(__name__)

#: Between tries to listen where another worker of the machine does, until that one ends.
_TURN_S = 5.0


def _has_files(weights: Weights) -> bool:
    """Whether the files of weights are here that an order was planned with."""
    try:
        found_here(weights)
    except CannotRun:
        return False
    return True


class WorkerModels:
    """One for a worker's process; of a machine's workers one gives to others, whoever has brought what."""

    def __init__(self, address: str, port: int | None) -> None:
        """
        Args:
            address: Of this machine, on the network of the farm.
            port: On which it gives models to others; None: it does not.
        """
        self._port = port if address else None
        self._end: WorkerEnd | None = None
        self._server: PieceServer | None = None
        self._holdings: dict[str, Holding] = {}
        if self._port is not None:
            threading.Thread(
                target=self._listen, args=(address, self._port), daemon=True, name="models-port"
            ).start()

    def serve(self, end: WorkerEnd) -> None:
        """A coordinator is here: tell it what this machine has, and know others by its secret."""
        self._end = end
        end.on_secret = self._know
        self.tell()

    def tell(self) -> None:
        """What this machine has, as it is now; nothing where its folders are another user's."""
        try:
            manifests = [] if self._port is None else recorded()
            held = held_models()
        except OSError as error:  # a worker that cannot tell of models can still render
            log.warning("the models of this machine cannot be looked at (%s)", error)
            return
        for manifest in manifests:
            self._hold(manifest)
        if self._end is not None:
            self._end.tell_models(held, [manifest.id for manifest in manifests], self._port)

    def need(self, order: Order, end: WorkerEnd, report: Callable[[int, int], None]) -> None:
        """Have the model of an order on this machine, from the farm where the farm has it.

        Args:
            report: Told how many of how many bytes are here; what it raises ends it.

        Raises:
            FarmError: there is no room for it, nobody gives it, or another model has its name.
            OSError: the coordinator is gone.
        """
        model, weights = order.task.model, order.task.weights
        has_model, added = is_here(model, weights), kept(model) is not None
        if has_model and not added and _has_files(weights):
            return
        report(0, 1)
        for manifest in end.model_of(order.attempt_id):
            if is_weights_key(manifest.key):
                is_that = kept(manifest.key) is not None
            else:
                is_that = self._is_that(manifest) if added else has_model
            if not is_that:
                self._bring(manifest, end, report)

    def _bring(self, manifest: Manifest, end: WorkerEnd, report: Callable[[int, int], None]) -> None:
        self._hold(manifest)
        log.info("%s comes from the farm, %.1f GB", manifest.key, manifest.size_bytes / 1e9)
        bring(
            manifest,
            lambda: end.sources.get(manifest.id, ()),
            lambda: end.secret,
            make_room=lambda wanted_bytes: self._make_room(wanted_bytes, manifest.key),
            on_bytes=report,
        )
        self.tell()

    def _is_that(self, manifest: Manifest) -> bool:
        """Whether what is kept under a name that its owner gave it is what the farm means; what came from the
        farm and was changed there goes.

        Raises:
            InvalidInput: this machine's owner has added another model of that name.
        """
        if any(known == manifest for known in recorded()):
            return True
        (model,) = [model for model in kept_models() if model.key == manifest.key]
        if model.origin == "farm":
            forget(model.key)
            return False
        if manifest_of(model.key, model.folder, [file.path for file in manifest.files]) != manifest:
            raise InvalidInput(
                f"{model.key} of this machine is another model than the farm's of that name: `farm models "
                f"remove {model.key}` here, and it comes from the farm",
                param="model",
            )
        return True

    def _make_room(self, wanted_bytes: int, key: str) -> None:
        going = to_drop(
            kept_models(),
            wanted_bytes,
            quota_bytes=models_quota(),
            free_bytes=room_bytes(),
            in_use={key},
        )
        for model in going:
            log.info("%s goes from this machine: it was not used for longest", model.key)
            forget(model.key)

    def _hold(self, manifest: Manifest) -> None:
        if manifest.id not in self._holdings:
            self._holdings[manifest.id] = InStore(manifest)

    def _find(self, manifest_id: str) -> Holding | None:
        """Whatever worker of this machine has brought it."""
        if manifest_id not in self._holdings:
            for manifest in recorded():
                self._hold(manifest)
        return self._holdings.get(manifest_id)

    def _know(self, secret: str) -> None:
        if self._server is not None:
            self._server.know(secret)

    def _listen(self, address: str, port: int) -> None:
        waiting = threading.Event()
        while True:
            try:
                server = PieceServer(address, port, self._find)
            except OSError:  # another worker of this machine is at it
                waiting.wait(_TURN_S)
                continue
            self._server = server
            if self._end is not None:
                server.know(self._end.secret)
            return
