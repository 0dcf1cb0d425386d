"""What the sandbox needs to know of a wire protocol; a folder beside this module is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, ClassVar, NamedTuple

from aiohttp import web

from .batch import Batch, LineError
from .errors import Refusal, missing, wrong_type
from .limits import Shortage, Standing
from .prompt import Body, Prompt
from .replies import Call, Reply
from .settings import Settings
from .state import State

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RowOutcome(StrEnum):
    """What became of a row."""

    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    EXPIRED = "expired"
    CANCELED = "canceled"
    SKIPPED = "skipped"  # never looked at, and not counted either


class Route(NamedTuple):
    """A path, and what it does."""

    method: str
    path: str
    op: str  #: The operation's name: what is counted, and what faults are set on.
    handler: Handler
    streamed: bool = False  #: Whether the handler streams the body to disk, so that nobody may read it ahead.


def _anything_goes(body: Body) -> None:
    return


@dataclass(frozen=True)
class Endpoint:
    """One ordinary endpoint: how its requests are read, and answered."""

    op: str  #: Its name in the books.
    texts: Callable[[Body], list[str]]  #: The texts of a request; raises Refusal.
    reply: Callable[[Call], Reply]
    required: tuple[str, ...] = ()  #: Fields of a request beside the texts and the model.
    model: str | None = None  #: The model of requests that name none; None: they are refused.
    check: Callable[[Body], None] = _anything_goes  #: What else is refused in a request that could be read.
    live: bool = True  #: Whether it can be called; else it is for batches.

    def read(self, body: Body) -> Prompt:
        """The model and the texts of a request body.

        Raises:
            Refusal: The body lacks something that the endpoint needs, in the core's words.
        """
        for name in self.required:
            if body.get(name) is None:
                raise missing(name)
        model = body.get("model")
        if model is None:
            model = self.model
        if model is None:
            raise missing("model")
        if not isinstance(model, str) or not model:
            raise wrong_type("model", "a string", model)
        return Prompt(model, self.texts(body))


class Check(NamedTuple):
    """What the check of a batch's input found: errors, or the batch's model, rows and estimated input tokens."""

    errors: list[LineError]
    rows: int
    model: str | None
    input_tokens: int


class RowRef(NamedTuple):
    """A row of a batch, for the ids that an answer holds: they are the same whenever it is processed again."""

    batch_id: str
    custom_id: str

    def id(self, prefix: str) -> str:
        """An id that is the same for the same row."""
        return f"{prefix}_{blake2b(f'{self.batch_id}/{self.custom_id}'.encode(), digest_size=12).hexdigest()}"


class Protocol(ABC):
    """One wire protocol. A row's line is the JSON value that its methods return."""

    name: ClassVar[str]
    request_id_header: ClassVar[str]
    request_field: ClassVar[str]  #: The field of a batch's row that holds the request.
    live_tier: ClassVar[str]  #: The service tier that answers name.
    batch_tier: ClassVar[str]
    keeps_ids: ClassVar[bool]  #: Whether clients send a row under the same id when they submit it again.
    error_file: ClassVar[bool]  #: Whether rows that did not succeed are in a file of their own.
    endpoints: ClassVar[Mapping[str, Endpoint]]  #: By path.
    routes: ClassVar[tuple[Route, ...]]  #: All but those of the endpoints.

    def speaks(self, request: web.Request) -> bool:
        """Whether a request to a path that several protocols have is in this one; the last of them takes any."""
        return True

    @abstractmethod
    def authenticate(self, request: web.Request, key: str, valid: bool) -> None:
        """Check what a request is sent with.

        Raises:
            Refusal: The key is missing or not valid, or a header is.
        """

    def check_live(self, request: web.Request, body: Body) -> None:
        """Check what depends on how a live call is sent.

        Raises:
            Refusal: It is refused.
        """
        return

    def check_row(self, body: Body) -> None:
        """Check what only a row of a batch may not ask for.

        Raises:
            Refusal: It is refused.
        """
        return

    @abstractmethod
    def envelope(self, refusal: Refusal, request_id: str) -> dict[str, Any]:
        """The body of an answer that says no."""

    def reworded(self, refusal: Refusal) -> Refusal:
        """A refusal of the core's in this protocol's words."""
        return refusal

    @abstractmethod
    def failure(self, name: str) -> Refusal:
        """One of the failures that a row may ask for."""

    @abstractmethod
    def limit_headers(self, standings: Mapping[str, Standing]) -> Mapping[str, str]:
        """The headers of a live answer that say how much is left of the served limits."""

    @abstractmethod
    def over_limit(self, model: str, shortage: Shortage) -> Refusal:
        """The refusal of a live call that a served limit does not let pass."""

    @abstractmethod
    def succeeded(self, row: RowRef, body: dict[str, Any]) -> dict[str, Any]:
        """The line of a row that was answered."""

    @abstractmethod
    def errored(self, row: RowRef, refusal: Refusal) -> dict[str, Any]:
        """The line of a row that was refused."""

    def failed(self, row: RowRef, name: str) -> dict[str, Any]:
        """The line of a row that asked for a failure."""
        return self.errored(row, self.failure(name))

    @abstractmethod
    def overtaken(self, row: RowRef, outcome: RowOutcome) -> dict[str, Any]:
        """The line of a row that the batch's end overtook: expired or canceled."""

    @abstractmethod
    def check(self, batch: Batch, state: State, settings: Settings, keep_on: Callable[[], None]) -> Check:
        """Check the input of a new batch; `keep_on` is called now and then and raises when the sandbox stops."""

    def publish(self, batch: Batch, state: State, settings: Settings) -> None:
        """Show the results of a batch that has ended where clients look for them, if not at the batch itself."""
        return

    async def announce(self, batch: Batch, settings: Settings) -> None:
        """Notify whoever asked for it that a batch has ended."""
        return
