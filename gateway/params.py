"""What a query says, checked, with OpenAI's words for what is wrong."""

from __future__ import annotations

import re

from starlette.requests import Request

from ..contract.gateway_layout import Listed, is_id
from .described import Param
from .errors import ApiError, not_found

AFTER = Param("after", "The id behind which the page begins: the last one of the page before.")
ORDER = Param("order", "Newest or oldest first.", {"type": "string", "enum": ["asc", "desc"], "default": "desc"})


def limit_param(default: int, most: int) -> Param:
    """Return the parameter that `limit_of` reads."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Param("limit", "How many objects the page has at most.", schema)


_INTEGER = re.compile(r"[+-]?[0-9]+")
#: What an id of each list names.
_OBJECTS = {Listed.FILES: "File", Listed.BATCHES: "Batch", Listed.EVENTS: "Event"}


def limit_of(request: Request, default: int, most: int) -> int:
    """Return how many objects of a list are asked for.

    Raises:
        ApiError: it is no number from 1 to `most`.
    """
    given = request.query_params.get("limit")
    if given is None:
        return default
    if not _INTEGER.fullmatch(given):
        raise ApiError(400, "Invalid type for 'limit': expected an integer.", param="limit", code="invalid_type")
    limit = int(given) if len(given) < 20 else most + 1
    if limit < 1:
        raise ApiError(
            400,
            f"Invalid 'limit': integer below minimum value. Expected a value >= 1, but got {limit} instead.",
            param="limit",
            code="integer_below_min_value",
        )
    if limit > most:
        raise ApiError(
            400,
            f"Invalid 'limit': integer above maximum value. Expected a value <= {most}, but got {given[:20]} instead.",
            param="limit",
            code="integer_above_max_value",
        )
    return limit


def own(request: Request, name: str) -> str | None:
    """Return a parameter that is ours.

    Raises:
        ApiError: it is there twice: none of the values is silently left out.
    """
    given = request.query_params.getlist(name)
    if len(given) > 1:
        raise ApiError(400, f"The parameter '{name}' is there twice.", param=name, code="invalid_value")
    return given[0] if given else None


def after_of(request: Request, listed: Listed) -> str | None:
    """Return the id behind which a page of a list begins.

    Raises:
        ApiError: it is no id of this kind.
    """
    after = request.query_params.get("after") or None
    if after is not None and not is_id(listed, after):
        raise not_found(_OBJECTS[listed], after, "after")
    return after


def oldest_first(request: Request) -> bool:
    """Return whether a list is asked for from its oldest object on.

    Raises:
        ApiError: `order` is neither asc nor desc.
    """
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ApiError(
            400,
            f"Invalid value: '{order[:100]}'. Supported values are: 'asc' and 'desc'.",
            param="order",
            code="invalid_value",
        )
    return order == "asc"
