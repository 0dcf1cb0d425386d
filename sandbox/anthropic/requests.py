"""What Anthropic refuses in a request beyond what it cannot be read without: parameters, ranges, roles, versions."""

from __future__ import annotations

from ..errors import Refusal
from ..parameters import Range, misfit, names, unknown
from ..prompt import Body

#: Source: the anthropic package 2.14, MessageCreateParams, and the reference of version 2023-06-01.
PARAMETERS = names(
    "betas billing_policy cache_control compaction container context_management diagnostics fallback_credit_token "
    "fallbacks inference_geo max_tokens mcp_servers messages metadata model output_config service_tier speed "
    "stop_sequences stream system temperature thinking thread tool_choice tools top_k top_p user_profile_id "
    "workspace_id"
)
#: Source: https://platform.claude.com/docs/en/api/versioning, and its migration guide of the last one.
VERSIONS = ("2023-01-01", "2023-06-01", "2026-10-21")
_LATEST = VERSIONS[-1]
#: Source: the anthropic package, MessageParam.
_ROLES = ("user", "assistant", "system")
_RANGES = {
    "temperature": Range(0, 1),
    "top_p": Range(0, 1),
    "top_k": Range(0, whole=True),
    "max_tokens": Range(0, whole=True),
}


def check(body: Body) -> None:
    """Check a message's parameters, ranges and roles.

    Raises:
        Refusal: 400.
    """
    if not body.keys() <= PARAMETERS and (name := unknown(body, PARAMETERS)) is not None:
        raise Refusal(400, f"{name}: Extra inputs are not permitted")
    if (found := misfit(body, _RANGES)) is not None:
        raise Refusal(400, f"{found.name}: {_expected(found.value, found.range)}")
    for index, message in enumerate(body["messages"]):
        role = message.get("role")
        if role is None:
            raise Refusal(400, f"messages.{index}.role: Field required")
        if role not in _ROLES:
            raise Refusal(400, f"messages.{index}.role: Input should be 'user', 'assistant' or 'system'")
        if message.get("content") is None:
            raise Refusal(400, f"messages.{index}.content: Field required")


def check_row(body: Body) -> None:
    """Check what only a row of a batch may not ask for.

    Raises:
        Refusal: 400.
    """
    if body.get("stream"):
        raise Refusal(400, "stream: streaming is not supported in a batch")
    if body.get("max_tokens") == 0:
        raise Refusal(400, "max_tokens: max_tokens of 0 is not supported in a batch")


def check_version(version: str, body: Body) -> None:
    """Check what a version of the API no longer takes.

    Raises:
        Refusal: 400.
    """
    if version == _LATEST and body.get("temperature") is not None:
        raise Refusal(400, "`temperature` is deprecated for this model.")


def _expected(value: object, allowed: Range) -> str:
    if isinstance(value, bool) or not isinstance(value, int if allowed.whole else (int, float)):
        return f"Input should be a valid {'integer' if allowed.whole else 'number'}"
    if value < allowed.low:
        return f"Input should be greater than or equal to {allowed.low}"
    return f"Input should be less than or equal to {allowed.high}"
