"""Routes of what lies in the storage."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from dashboard.api.examples import STORAGE
from dashboard.http import answers, api_router
from farm.keeping import Survey, known, survey
from farm.running import Coordinator


def storage_router(coordinator: Coordinator) -> APIRouter:
    """Routes under which the storage is looked over, and what nobody knows is removed from it."""
    router = api_router("storage")
    one_at_a_time = asyncio.Lock()

    async def surveyed() -> JSONResponse:
        found = await asyncio.to_thread(survey, coordinator.storage, *known(coordinator.ledger.state))
        return JSONResponse(found.model_dump(mode="json"))

    @router.get(
        "/storage", summary="What lies in the storage", response_model=Survey, responses=answers(STORAGE)
    )
    async def storage() -> JSONResponse:
        """Files and bytes by what the journal knows of them. What it does not know stays."""
        async with one_at_a_time:
            return await surveyed()

    @router.delete(
        "/storage/unknown",
        summary="Remove what the journal does not know",
        response_model=Survey,
        responses=answers(STORAGE),
    )
    async def remove_unknown() -> JSONResponse:
        """Remove content and job folders that no job has; answers with what is left."""
        async with one_at_a_time:
            await coordinator.blobs.remove_unknown()
            return await surveyed()

    return router
