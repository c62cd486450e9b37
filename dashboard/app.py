"""The farm's web server as a value: ``create_app`` puts routes, access and errors together."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, FastAPI
from typing_extensions import TypedDict

from dashboard.access import (
    AUDIT_NAME,
    JOIN_EXPIRY_S,
    LOGIN_EXPIRY_S,
    OWNER,
    Audit,
    Gate,
    Keys,
    Limits,
    OneTimeTokens,
    Sessions,
    access_router,
    login_link,
)
from dashboard.api import (
    JobSummaries,
    artifacts_router,
    jobs_router,
    keyframes_router,
    models_router,
    nodes_router,
    openai_models_router,
    segments_router,
    storage_router,
    uploads_router,
)
from dashboard.background import beside
from dashboard.doors_store import STORE_NAME, open_store
from dashboard.files import Artifacts, LargeAnswers, PictureCache, WorkersSeen
from dashboard.http import API, NO_KEY, AnswerHead, Route, answer_errors, answers, describe, document_route
from dashboard.intake import Intake, KeptUploads, Specs, Submitting, UploadSpace
from dashboard.live import Feed, events_router
from dashboard.metrics import CountRequests, Metrics, metrics_router
from dashboard.pages import TRY_FOLDER, pages_router
from dashboard.videos import VideosIntake, videos_router
from dashboard.webhooks import Webhooks, WebhookStore, webhooks_router
from farm.keeping import keep_compact
from farm.reporting import ShapeOf, log_events, no_shapes
from farm.request import MediaTools
from farm.running import Coordinator, Membership
from farm.version import VERSION

MAX_UPLOAD_BYTES = 4 << 30
_ABOUT = (
    "A render farm for AI video. Times are seconds since the epoch, sizes bytes, frame numbers half-open "
    "from 0; what is not known is null. Every error has the shape `Error`."
)


def create_app(
    *,
    coordinator: Coordinator,
    membership: Membership,
    tools: MediaTools,
    state: Path,
    access: str,
    models: Callable[[], list[dict[str, Any]]],
    shape_of: ShapeOf = no_shapes,
    allowed_hosts: Collection[str] = (),
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
    limits: Limits | None = None,
) -> FastAPI:
    """The app, to be made and served on the event loop that runs the coordinator.

    Args:
        membership: what joining and leaving machines are told.
        tools: what looks into pictures and videos; called in threads.
        state: the farm's state folder; keys, sessions, webhooks and uploads are kept there.
        access: the owner's token, which may do everything.
        models: what can be rendered, as ``farm models`` lists it.
        shape_of: what is known of a model whose files are not here.
        allowed_hosts: names under which browsers may reach this farm, besides this machine's own.
        max_upload_bytes: largest body of an upload.
        limits: how often one caller may ask; None: the usual.
    """
    store = open_store(state / STORE_NAME)
    feed = Feed(coordinator.ledger)
    webhooks = Webhooks(WebhookStore(store), coordinator.ledger)
    uploads = KeptUploads(state / "uploads")
    coordinator.ledger.readers.append(webhooks.sent_up_to)
    metrics = Metrics(coordinator.ledger, feed, webhooks)
    app = FastAPI(
        title="Reelfarm",
        version=VERSION,
        description=_ABOUT,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=beside(
            partial(log_events, coordinator.ledger),
            metrics.run,
            webhooks.run,
            uploads.run,
            partial(keep_compact, coordinator.ledger, coordinator.storage),
            at_end=store.close,
        ),
    )
    keys = Keys(store, access)
    sessions = Sessions(store, keys)
    audit = Audit(state / AUDIT_NAME)
    app.state.keys = keys
    app.add_middleware(AnswerHead)
    app.add_middleware(
        Gate,
        keys=keys,
        sessions=sessions,
        audit=audit,
        limits=limits or Limits(),
        allowed_hosts=allowed_hosts,
    )
    app.add_middleware(CountRequests, metrics=metrics)
    answer_errors(app)
    describe(app)
    app.add_api_route(f"{API}/openapi.json", document_route(app), methods=["GET"], include_in_schema=False)
    health = APIRouter(prefix=API, tags=["health"], route_class=Route)
    health.add_api_route(
        "/health",
        _health,
        methods=["GET"],
        summary="Whether the farm answers",
        responses=answers({"status": "ok", "version": VERSION}),
        openapi_extra=NO_KEY,
    )
    join_tokens = OneTimeTokens(JOIN_EXPIRY_S)
    app.state.join_tokens = join_tokens
    login_links = OneTimeTokens(LOGIN_EXPIRY_S)
    app.state.login_link = lambda: login_link(login_links, OWNER.id)
    app.state.feed = feed
    app.state.metrics = metrics
    space = UploadSpace(coordinator.storage.root)
    intake = Intake(coordinator.storage, tools, uploads, max_upload_bytes, space)
    specs = Specs(coordinator.spec_of)
    submitting = Submitting(coordinator, specs)
    pictures = PictureCache()
    ledger, storage = coordinator.ledger, coordinator.storage
    summaries = JobSummaries(ledger)
    workers_seen = WorkersSeen(ledger.journal.path)
    large = LargeAnswers()
    artifacts = Artifacts(storage, coordinator.reopening, tools, pictures, workers_seen, large)
    for router in (
        health,
        jobs_router(coordinator, intake, submitting, pictures, workers_seen, large, summaries),
        keyframes_router(coordinator, intake, pictures, summaries),
        segments_router(ledger, storage, coordinator.reopening, tools, pictures, workers_seen),
        artifacts_router(ledger, artifacts),
        uploads_router(intake, pictures),
        models_router(coordinator, intake, specs, models, shape_of),
        nodes_router(coordinator, join_tokens, membership, keys),
        storage_router(coordinator),
        events_router(feed),
        webhooks_router(webhooks),
        access_router(keys, sessions, login_links, audit),
        videos_router(coordinator, VideosIntake(coordinator.reopening, intake, specs), submitting, artifacts),
        openai_models_router(models),
        metrics_router(metrics),
        pages_router(state / TRY_FOLDER),
    ):
        # Included, every route would be made once more with the first request.
        app.router.routes.extend(router.routes)
    return app


class Health(TypedDict):
    status: Literal["ok"]
    version: str


async def _health() -> Health:
    """Whether the server answers, and which version it is; needs no key."""
    return {"status": "ok", "version": VERSION}
