"""Errors in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from vislang.document import MediaError
from vislang.errors import UserError
from vislang.models.flamingo.collate import PromptTooLong

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """A request that is not answered.

    Args:
        status: HTTP status.
        message: what is wrong, and the remedy.
        code: a word for programs.
        param: the field of the request that is at fault.
        headers: of the reply.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(status, message, headers)
        self.code, self.param = code, param

    def body(self) -> dict[str, Any]:
        """The reply's body."""
        kind = _TYPES.get(self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error")
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """An error of the request's content."""
    return ApiError(400, message, code, param)


def unsupported(message: str, param: str | None = None) -> ApiError:
    """A request for something that the server or the model cannot do."""
    return ApiError(400, message, "unsupported", param)


def from_user_error(error: UserError) -> ApiError:
    """The reply to a request that a model rejects."""
    if isinstance(error, MediaError):
        return ApiError(400, str(error), "invalid_image")
    if isinstance(error, PromptTooLong):
        return ApiError(400, str(error), "context_length_exceeded", "messages")
    return ApiError(400, str(error), "invalid_request")
