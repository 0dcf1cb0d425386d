"""How a route describes itself, for `/openapi.json`.

A route says at its endpoint what it takes and what it answers with:

    @Described(answer=FilePage, takes=[limit_param(100, 1_000), AFTER], errors={404: "There is no such file."})
    async def listing(request: Request) -> Response:
        '''List files, newest first.'''

The first line of the docstring is its summary; method, path and the path's parameters are the route's own. That is all:
each route that `app.routes()` returns is in the document with it. `answer`, `body` and `error` are types that pydantic
knows: models of the contract where there are any, a TypedDict (see shapes.py) where an answer is put together by hand.

A new route needs an entry in tests/gateway/every_route.py too: the tests hold its real answers against what it says of
itself, ask it without a key, and ask it as one tenant for what another one made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from .shapes import ErrorEnvelope

Endpoint = Callable[[Request], Awaitable[Response]]

JSON = "application/json"

_DESCRIPTION = "described"


@dataclass(frozen=True)
class Param:
    """A parameter of the query, or a header."""

    name: str
    text: str  #: What it does, in a sentence.
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})  #: JSON Schema.
    where: Literal["query", "header"] = "query"
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a route takes and answers with; a decorator that gives it to an endpoint."""

    answer: Any = None  #: The type of its answer; None for bytes or text.
    media: str = JSON  #: The answer's.
    statuses: Mapping[int, str] = field(default_factory=lambda: {200: "OK."})  #: With that answer, and what they mean.
    takes: Sequence[Param] = ()
    body: Any = None  #: The type of the request's body; None where it takes none.
    body_media: str = JSON
    body_optional: bool = False  #: Whether it may be left out.
    errors: Mapping[int, str] = field(default_factory=dict)  #: Those that are its own, and what they mean.
    error: Any = ErrorEnvelope  #: The type of all its errors.
    keyless: bool = False  #: Whether it answers without a key.

    def __call__(self, endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__[_DESCRIPTION] = self
        return endpoint

    @staticmethod
    def of(endpoint: Any) -> Described | None:
        """Return what an endpoint says of itself; None if it says nothing."""
        found = getattr(endpoint, _DESCRIPTION, None)
        return found if isinstance(found, Described) else None
