"""The two kinds of refusal: of a request, and of the sandbox itself to start."""

from __future__ import annotations

from collections.abc import Mapping


class SandboxError(Exception):
    """The sandbox cannot start or was asked for something it does not have; one sentence for a person."""


class Refusal(Exception):
    """An answer that says no.

    Args:
        status: The HTTP status.
        message: The provider's sentence.
        code: The machine-readable code, where the protocol has one.
        param: The name of the offending parameter, where the protocol says it.
        type: The error type; derived from the status by the protocol when not given.
        retry_after: Seconds for the `retry-after` header.
        headers: Further headers.
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
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.type = type
        self.retry_after = retry_after
        self.headers = headers or {}


def missing(param: str) -> Refusal:
    """The refusal for a required parameter that is not there."""
    return Refusal(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)


def wrong_type(param: str, expected: str, value: object) -> Refusal:
    """The refusal for a parameter of another JSON type."""
    return Refusal(
        400,
        f"Invalid type for '{param}': expected {expected}, but got {json_type(value)} instead.",
        code="invalid_type",
        param=param,
    )


def json_type(value: object) -> str:
    """The JSON type of a decoded value, as messages name it."""
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
