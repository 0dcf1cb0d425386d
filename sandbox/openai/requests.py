"""What OpenAI refuses in a request beyond what it cannot be read without: parameters, ranges, roles."""

from __future__ import annotations

from ..errors import Refusal, missing, wrong_type
from ..parameters import Range, misfit, names, unknown
from ..prompt import Body

#: Source: the openai package 3.57, the parameters of each endpoint.
_COMMON = "model user metadata safety_identifier service_tier store stream stream_options temperature top_p"
_CACHE = "prompt_cache_key prompt_cache_options prompt_cache_retention"
CHAT_PARAMETERS = names(
    f"{_COMMON} {_CACHE} audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens "
    "max_tokens messages modalities moderation n parallel_tool_calls prediction presence_penalty reasoning_effort "
    "response_format seed stop tool_choice tools top_logprobs verbosity web_search_options"
)
RESPONSES_PARAMETERS = names(
    f"{_COMMON} {_CACHE} access_programs background context_management conversation image include input instructions "
    "max_output_tokens max_tool_calls moderation parallel_tool_calls previous_response_id prompt reasoning text "
    "tool_choice tools top_logprobs truncation"
)
EMBEDDINGS_PARAMETERS = names("dimensions encoding_format input model user")
COMPLETIONS_PARAMETERS = names(
    "best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed stop stream "
    "stream_options suffix temperature top_p user"
)
MODERATIONS_PARAMETERS = frozenset(("input", "model"))
#: Of a message. Source: the openai package, ChatCompletionMessageParam.
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
#: Source: OpenAI's API reference, "Create chat completion".
_RANGES = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1),
    "n": Range(1, 128, whole=True),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "top_logprobs": Range(0, 20, whole=True),
    "max_tokens": Range(1, whole=True),
    "max_completion_tokens": Range(1, whole=True),
    "max_output_tokens": Range(1, whole=True),
}


def check_chat(body: Body) -> None:
    """Check a chat.

    Raises:
        Refusal: 400.
    """
    _check(body, CHAT_PARAMETERS)
    for index, message in enumerate(body["messages"]):
        where, role = f"messages[{index}]", message.get("role")
        if role is None:
            raise missing(f"{where}.role")
        if role not in _ROLES:
            values = ", ".join(f"'{known}'" for known in _ROLES)
            message = f"Invalid value: '{role}'. Supported values are: {values}."
            raise Refusal(400, message, code="invalid_value", param=f"{where}.role")
        if role == "user" and message.get("content") is None:
            raise missing(f"{where}.content")


def check_response(body: Body) -> None:
    """Check a request for a response.

    Raises:
        Refusal: 400.
    """
    _check(body, RESPONSES_PARAMETERS)


def check_embedding(body: Body) -> None:
    """Check a request for embeddings.

    Raises:
        Refusal: 400.
    """
    _check(body, EMBEDDINGS_PARAMETERS)


def check_completion(body: Body) -> None:
    """Check a completion.

    Raises:
        Refusal: 400.
    """
    _check(body, COMPLETIONS_PARAMETERS)


def check_moderation(body: Body) -> None:
    """Check a moderation.

    Raises:
        Refusal: 400.
    """
    _check(body, MODERATIONS_PARAMETERS)


def _check(body: Body, known: frozenset[str]) -> None:
    if not body.keys() <= known and (name := unknown(body, known)) is not None:
        raise Refusal(400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
    if (found := misfit(body, _RANGES)) is None:
        return
    name, value, allowed = found
    kind = "integer" if allowed.whole else "decimal"
    if isinstance(value, bool) or not isinstance(value, int if allowed.whole else (int, float)):
        raise wrong_type(name, "an integer" if allowed.whole else "a decimal", value)
    low = value < allowed.low
    side, sign, bound = ("below minimum", ">=", allowed.low) if low else ("above maximum", "<=", allowed.high)
    message = f"Invalid '{name}': {kind} {side} value. Expected a value {sign} {bound}, but got {value} instead."
    raise Refusal(400, message, code=f"{kind}_{'below_min' if low else 'above_max'}_value", param=name)
