"""Every error a user can meet: one clear line that says what was wrong and what to do.

The CLI prints ``error: <message>`` and leaves with ``exit_code``; both doors of the API answer
``{"error": {"message", "type", "param", "code"}}`` with ``http_status``. There is no second shape.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

#: Names what is wrong where a request has no key, or one that the farm does not know.
KEY_PARAM = "Authorization"

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "rate_limit_error",
    "server_error",
]


def error_type(http_status: int) -> ErrorType:
    """The family of an error, by the status it is answered with; clients choose their class by it."""
    match http_status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 429:
            return "rate_limit_error"
    return "server_error" if http_status >= 500 else "invalid_request_error"


def error_json(http_status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The one shape of an error answer."""
    return {
        "error": {"message": message, "type": error_type(http_status), "param": param, "code": code},
    }


class FarmError(Exception):
    """Base of all errors meant for a person. ``message`` says what was wrong and what to do."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def to_json(self) -> dict[str, Any]:
        return error_json(self.http_status, self.code, self.message, self.param)


class InvalidInput(FarmError):
    """The request itself is wrong; the same request will never work."""

    code = "invalid_input"
    exit_code = 2
    http_status = 400


class TooLarge(InvalidInput):
    """More bytes than the farm takes."""

    code = "too_large"
    http_status = 413


class NotFound(FarmError):
    """No job, node or model has that name."""

    code = "not_found"
    exit_code = 2
    http_status = 404


class NotReady(NotFound):
    """It will be there later, or would be had the job gone on."""

    code = "not_ready"


class NotAllowed(FarmError):
    """A token is missing, wrong or used up."""

    code = "not_allowed"
    exit_code = 2
    http_status = 401


class Forbidden(FarmError):
    """The token is right, and may not do this."""

    code = "forbidden"
    exit_code = 2
    http_status = 403


class TooManyRequests(FarmError):
    """Asked more often than the farm answers; ``retry_after_s`` says when to ask again."""

    code = "rate_limited"
    http_status = 429

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class CannotRun(FarmError):
    """The request is sound, but this farm cannot do it (memory, engine, mode, disk)."""

    code = "cannot_run"
    exit_code = 3
    http_status = 422


class PortClosed(CannotRun):
    """Two machines do not reach each other. ``commands``: for each usual firewall what opens the port."""

    def __init__(self, message: str, commands: tuple[str, ...]) -> None:
        super().__init__(message)
        self.commands = commands


class LicenceNotAccepted(CannotRun):
    """Nobody here has accepted the licence of a model that restricts its use."""

    code = "licence_not_accepted"


class Conflict(FarmError):
    """The key of an earlier request came again with another request."""

    code = "idempotency_key_reused"
    exit_code = 2
    http_status = 422


class JobFailed(FarmError):
    """The job was accepted and stopped; what is done is kept."""

    code = "job_failed"
    exit_code = 1


class ResultRefused(FarmError):
    """A result came from an attempt that no longer owns its task, or does not match the order."""

    code = "result_refused"


#: By the code with which an error crosses the API.
ERRORS: dict[str, type[FarmError]] = {
    error.code: error
    for error in (
        InvalidInput,
        TooLarge,
        NotFound,
        NotReady,
        NotAllowed,
        Forbidden,
        TooManyRequests,
        CannotRun,
        LicenceNotAccepted,
        Conflict,
        JobFailed,
        ResultRefused,
    )
}
