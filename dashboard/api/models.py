"""Routes of what can be rendered: models, presets, and the settings these workers can hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse
from typing_extensions import TypedDict

from dashboard.access import Principal
from dashboard.api.examples import MODEL, PRESET, UPLOAD_ID
from dashboard.api.runnable_example import CHOICES, RUNNABLE
from dashboard.http import ModelRequest, Route, answers, api_router
from dashboard.intake import Intake, Specs, Turns, caller_of
from farm.capabilities import OWN_WEIGHTS, listed_model
from farm.errors import CannotRun, InvalidInput
from farm.planning import Choices, choices, nothing_asked, preset_choices
from farm.reporting import ModelReport, ShapeOf, machines_with_models, model_reports, report_json
from farm.request import PRESETS, JobRequest, Preset
from farm.running import Coordinator
from farm.state import LicenceAccepted

#: Looks at what runs, each of some hundred plans: so many at a time, and so many of one caller that may wait.
LOOKS_AT_ONCE = 2
LOOKS_WAITING = 16


class LicenceSummary(TypedDict):
    name: str
    url: str
    #: It has to be accepted once before a job can have the model.
    restricts_use: bool


class ModelSummary(TypedDict):
    #: The name it is asked for by.
    model: str
    engine: str
    #: Kinds of input: image, text, video.
    takes: list[str]
    source: str
    #: Of the hub, which may stand for the name; None of one that came with the farm.
    repository: str | None
    #: Whether its files are on the coordinator's disk; else the first job with it fetches them.
    here: bool
    licence: LicenceSummary
    #: Whether the farm may use it: its licence restricts nothing, or was accepted.
    accepted: bool


class ModelList(TypedDict):
    data: list[ModelSummary]
    next_cursor: str | None


class RunnableList(TypedDict):
    data: list[ModelReport]
    next_cursor: str | None


class OpenAIModel(TypedDict):
    """A model in the shape of OpenAI's."""

    #: What ``model`` is given as.
    id: str
    object: Literal["model"]
    #: Clients want a number; when a model was made is not known here: 0.
    created: int
    owned_by: str


class OpenAIModelList(TypedDict):
    object: Literal["list"]
    data: list[OpenAIModel]


class PresetList(TypedDict):
    data: list[Preset]
    next_cursor: str | None


def models_router(
    coordinator: Coordinator,
    intake: Intake,
    specs: Specs,
    models: Callable[[], list[dict[str, Any]]],
    shape_of: ShapeOf,
) -> APIRouter:
    """Routes under which a person, or a program, finds out what may be asked for."""
    router = api_router("models")
    looks = Turns("be told what runs", of_one=1, of_all=LOOKS_AT_ONCE, waiting=LOOKS_WAITING)

    @router.get(
        "/models",
        summary="Models",
        response_model=ModelList,
        responses=answers({"data": [MODEL], "next_cursor": None}),
    )
    async def model_list() -> JSONResponse:
        """The models that can be asked for by name."""
        return JSONResponse({"data": await asyncio.to_thread(summaries), "next_cursor": None})

    def summaries() -> list[dict[str, Any]]:
        accepted = coordinator.ledger.state.accepted_licences
        return [
            {
                **model,
                "accepted": not model["licence"]["restricts_use"] or model["licence"]["name"] in accepted,
            }
            for model in models()
        ]

    @router.post(
        "/models/licences",
        summary="Accept a licence",
        response_model=ModelSummary,
        responses=answers(MODEL, errors={404: "There is no such model."}),
    )
    async def accept_licence(request: Request, asked: ModelRequest) -> JSONResponse:
        """Accept the licence of a model that restricts its use, once for the farm and all models under it."""
        model = listed_model(await asyncio.to_thread(summaries), asked.model)
        if not model["accepted"]:
            principal: Principal = request.state.principal
            coordinator.ledger.record(
                LicenceAccepted(
                    licence=model["licence"]["name"], model=model["model"], accepted_by=principal.name
                )
            )
        return JSONResponse({**model, "accepted": True})

    @router.get(
        "/models/runnable",
        summary="What this farm can run of every model",
        response_model=RunnableList,
        responses=answers({"data": [RUNNABLE], "next_cursor": None}),
    )
    async def runnable_of(
        request: Request,
        model: Annotated[
            str | None,
            Query(
                description="Only this one, by name or, on a farm that nobody else can reach, by folder.",
                examples=["tiny_wan"],
            ),
        ] = None,
    ) -> JSONResponse:
        """Sizes and windows that were tried of each: at which rung and how fast one runs on the workers that
        are here, or what the worker that comes nearest lacks. Models of the farm's jobs are there too."""
        state = coordinator.ledger.state
        workers = [w.worker for w in state.workers.values() if not w.draining]
        profiles, folders = deepcopy(state.profiles), state.models
        held_by = machines_with_models(state.workers.values())

        def look() -> list[dict[str, Any]]:
            found = model_reports(
                models(),
                lambda name: coordinator.spec_of(name, OWN_WEIGHTS),
                workers,
                profiles,
                shape_of=shape_of,
                held_by=held_by,
                names=[model] if model else [],
                folders=folders,
            )
            return [report_json(report) for report in found]

        async with looks.one(caller_of(request)):
            found = await asyncio.to_thread(look)
        return JSONResponse({"data": found, "next_cursor": None})

    @router.get(
        "/models/{model}/choices",
        summary="What these workers can hold of a model",
        response_model=Choices,
        responses=answers(
            CHOICES, errors={404: "There is no such model or upload.", 422: "The model cannot be read here."}
        ),
    )
    async def choices_of(
        model: Annotated[str, Path(description="Name of a model.", examples=["tiny_wan"])],
        upload_id: Annotated[
            str | None,
            Query(
                description="What is to be animated; without it, an image of the model's own shape.",
                examples=[UPLOAD_ID],
            ),
        ] = None,
    ) -> JSONResponse:
        """Sizes, windows and modes; those that no worker here can hold are there with the reason."""
        entry = next((m for m in await asyncio.to_thread(models) if m["model"] == model), None)
        if entry is not None and not entry["here"]:
            raise CannotRun(
                f"the files of {model} are not on this disk; the first job with it fetches them",
                param="model",
            )
        spec = await specs.get(model)
        request = None
        if upload_id is not None:
            media = (await asyncio.to_thread(intake.uploads.get, upload_id)).media
            if media.kind == "audio":
                raise InvalidInput("the upload is a sound, and no video starts from one", param="upload_id")
            request = JobRequest(inputs=(media,), model=model)
        workers = [w.worker for w in coordinator.ledger.state.workers.values() if not w.draining]
        found = await asyncio.to_thread(choices, spec, workers, request)
        judged = preset_choices(spec, workers, request or nothing_asked(spec))
        found = found.model_copy(update={"presets": tuple(judged)})
        return JSONResponse(found.model_dump(mode="json"))

    @router.get(
        "/presets",
        summary="Presets",
        response_model=PresetList,
        responses=answers({"data": [PRESET], "next_cursor": None}),
    )
    async def presets() -> JSONResponse:
        """Settings by name, for the option `preset` of a job."""
        return JSONResponse({"data": [p.model_dump(mode="json") for p in PRESETS], "next_cursor": None})

    return router


def openai_models_router(models: Callable[[], list[dict[str, Any]]]) -> APIRouter:
    """The route that front ends for OpenAI's API fill their list of models from."""
    router = APIRouter(tags=["videos"], prefix="/v1", route_class=Route)

    @router.get(
        "/models",
        summary="List models",
        responses=answers({"object": "list", "data": [_openai_model(MODEL["model"])]}),
    )
    async def model_list() -> OpenAIModelList:
        """The models that can be asked for by name, as OpenAI lists its own."""
        found = await asyncio.to_thread(models)
        return {"object": "list", "data": [_openai_model(model["model"]) for model in found]}

    return router


def _openai_model(name: str) -> OpenAIModel:
    return {"id": name, "object": "model", "created": 0, "owned_by": "reelfarm"}
