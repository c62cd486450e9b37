"""Every error a user can meet: one clear line that says what was wrong and what to do.

The CLI prints ``error: <message>`` and leaves with ``exit_code``; the API answers
``{"error": {"code", "message", "param"}}`` with ``http_status``. There is no second shape.
"""

from __future__ import annotations

from typing import ClassVar


class FarmError(Exception):
    """Base of all errors meant for a person. ``message`` says what was wrong and what to do."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def to_json(self) -> dict[str, dict[str, str | None]]:
        return {"error": {"code": self.code, "message": self.message, "param": self.param}}


class InvalidInput(FarmError):
    """The request itself is wrong; the same request will never work."""

    code = "invalid_input"
    exit_code = 2
    http_status = 400


class NotFound(FarmError):
    """No job, node or model has that name."""

    code = "not_found"
    exit_code = 2
    http_status = 404


class NotAllowed(FarmError):
    """A token is missing, wrong or used up."""

    code = "not_allowed"
    exit_code = 2
    http_status = 401


class CannotRun(FarmError):
    """The request is sound, but this farm cannot do it (memory, engine, mode, disk)."""

    code = "cannot_run"
    exit_code = 3
    http_status = 422


class JobFailed(FarmError):
    """The job was accepted and stopped; what is done is kept."""

    code = "job_failed"
    exit_code = 1


class ResultRefused(FarmError):
    """A result came from an attempt that no longer owns its task, or does not match the order."""

    code = "result_refused"
