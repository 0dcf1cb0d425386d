"""The two kinds of refusal: of a request (in the provider's own envelope) and of the sandbox itself to start."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Protocol(StrEnum):
    """Whose wire protocol a request speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class SandboxError(Exception):
    """The sandbox cannot start or was asked for something it does not have; one sentence for a person."""


_OPENAI_TYPES = {429: "rate_limit_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Refusal(Exception):
    """An answer that says no.

    Args:
        status: The HTTP status.
        message: The provider's sentence.
        code: OpenAI's machine-readable code; Anthropic has none.
        param: OpenAI's name of the offending parameter.
        type: The error type; derived from the status and the protocol when not given.
        retry_after: Seconds for the `retry-after` header.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.type = type
        self.retry_after = retry_after

    def openai(self) -> dict[str, Any]:
        """OpenAI's error envelope."""
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = self.type or _OPENAI_TYPES.get(self.status, default)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def anthropic(self, request_id: str) -> dict[str, Any]:
        """Anthropic's error envelope."""
        default = "api_error" if self.status >= 500 else "invalid_request_error"
        kind = self.type or _ANTHROPIC_TYPES.get(self.status, default)
        return {
            "type": "error",
            "error": {"type": kind, "message": self.message},
            "request_id": request_id,
        }

    def in_anthropic_words(self) -> Refusal:
        """The same refusal of a parameter, worded as Anthropic does."""
        words = {
            "missing_required_parameter": "Field required",
            "invalid_type": "Input should be of another type",
            "empty_array": "at least one message is required",
        }
        if self.param is None or self.code not in words:
            return self
        return Refusal(self.status, f"{self.param}: {words[self.code]}")


def missing(param: str) -> Refusal:
    """OpenAI's words for a required parameter that is not there."""
    return Refusal(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)


def wrong_type(param: str, expected: str, value: object) -> Refusal:
    """OpenAI's words for a parameter of another JSON type."""
    return Refusal(
        400,
        f"Invalid type for '{param}': expected {expected}, but got {json_type(value)} instead.",
        code="invalid_type",
        param=param,
    )


def json_type(value: object) -> str:
    """The JSON type of a decoded value, as OpenAI's messages name it."""
    names: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "something else")
