"""Routes under their whole address, which FastAPI reads once in a process and not anew for every app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import CodeType
from typing import Any, ClassVar

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute, request_response

from dashboard.http.openapi import API
from dashboard.http.queries import known_query_only


class Route(APIRoute):
    """A route whose signature was read before, if another was made from the same function.

    Endpoints are closures over one farm, each app has its own. What FastAPI makes of their signatures is the
    same for all of them: parameters and the schemas of answers, 2 ms a route.
    """

    #: What was read, by address, function and methods, without what belongs to one app.
    _read: ClassVar[dict[tuple[str, CodeType, frozenset[str]], dict[str, Any]]] = {}

    def __init__(self, path: str, endpoint: Callable[..., Any], **told: Any) -> None:
        key = path, endpoint.__code__, frozenset(told["methods"])
        if key not in self._read:
            super().__init__(path, endpoint, **told)
            self._read[key] = {name: value for name, value in vars(self).items() if name != "app"} | {
                "endpoint": None,
                "dependant": replace(self.dependant, call=None),
            }
            return
        vars(self).update(self._read[key])
        self.endpoint = endpoint
        self.dependant = replace(self.dependant, call=endpoint)
        self.app = request_response(self.get_route_handler())


def api_router(tag: str) -> APIRouter:
    """A router under ``/api/v1``, which refuses what its routes do not know."""
    return APIRouter(prefix=API, tags=[tag], dependencies=[Depends(known_query_only)], route_class=Route)
