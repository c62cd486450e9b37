"""What requests and answers have in common at every door: schemas, queries, errors, the document.

Nothing that knows of keys, jobs under way or pages enters.
"""

from __future__ import annotations

from dashboard.http.error_answers import answer_errors, error_answer
from dashboard.http.head import AnswerHead
from dashboard.http.openapi import API, MACHINE_KEY, NO_KEY, answers, describe, document_route
from dashboard.http.queries import (
    DEFAULT_LIMIT,
    Cursor,
    Limit,
    Order,
    cursor_after,
    page_of,
    page_of_names,
    position_of,
)
from dashboard.http.routes import Route, api_router
from dashboard.http.schemas import (
    ModelRequest,
    NodeRequest,
    PictureBody,
    ReachRequest,
    body_schema,
    invalid,
    job_body,
    job_options,
    job_request,
    options_schema,
    picture_body,
    shown_event,
    shown_plan,
)
from dashboard.http.security_headers import ISOLATED, SECURITY_HEADERS

__all__ = [
    "API",
    "DEFAULT_LIMIT",
    "ISOLATED",
    "MACHINE_KEY",
    "NO_KEY",
    "SECURITY_HEADERS",
    "AnswerHead",
    "Cursor",
    "Limit",
    "ModelRequest",
    "NodeRequest",
    "Order",
    "PictureBody",
    "ReachRequest",
    "Route",
    "answer_errors",
    "answers",
    "api_router",
    "body_schema",
    "cursor_after",
    "describe",
    "document_route",
    "error_answer",
    "invalid",
    "job_body",
    "job_options",
    "job_request",
    "options_schema",
    "page_of",
    "page_of_names",
    "picture_body",
    "position_of",
    "shown_event",
    "shown_plan",
]
