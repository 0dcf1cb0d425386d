"""Faults on demand: which requests misbehave, how, and how often."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

import msgspec

from .batch import Outcome
from .errors import SandboxError
from .state import State

#: What a fault can be set on; "*" is any of them.
OPS = (
    "files.create",
    "files.list",
    "files.retrieve",
    "files.content",
    "files.delete",
    "batches.create",
    "batches.retrieve",
    "batches.list",
    "batches.cancel",
    "batches.delete",
    "batches.results",
    "chat",
    "responses",
    "embeddings",
    "completions",
    "moderations",
    "models",
    "messages",
)

#: Kinds that stop a request before it takes effect.
BEFORE = frozenset({"status", "reset", "outage", "hold_before"})
#: Kinds that spoil the answer of a request that took its full effect.
AFTER = frozenset({"lost_answer", "lost_answer_status", "reset_answer", "slow", "hold", "override"})
#: Kinds that a handler applies itself.
TRUNCATE = frozenset({"truncate"})
BATCH_OUTCOME = frozenset({"batch_outcome"})

_HttpError = Annotated[int, msgspec.Meta(ge=400, le=599)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault. It is spent after `times` requests and gone after `seconds`; with neither it stays until cleared."""

    op: str
    kind: Literal[
        "status",
        "reset",
        "outage",
        "hold_before",
        "lost_answer",
        "lost_answer_status",
        "reset_answer",
        "slow",
        "hold",
        "truncate",
        "batch_outcome",
        "override",
    ]
    times: Annotated[int, msgspec.Meta(ge=0)] | None = None
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0  # matching requests to let pass first
    seconds: _Seconds | None = None
    status: _HttpError | None = None  # of `status` and `lost_answer_status`
    retry_after: _Seconds | None = None  # seconds, for the header
    code: str | None = None
    type: str | None = None
    message: str | None = None
    delay_seconds: _Seconds = 0.0  # of `slow`
    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] = (
        0.5  # of `truncate`, `reset_answer` (bytes), `batch_outcome` (rows)
    )
    outcome: Literal["expired", "failed", "cancelled"] | None = None  # of `batch_outcome`
    put: dict[str, Any] = {}  # of `override`: JSON pointers (RFC 6901; "" is all of it) and what the answer says there
    drop: list[str] = []  # of `override`: JSON pointers of what the answer leaves out
    body: str | None = None  # of `override`: what is sent in place of JSON
    media: str = "application/json"  # of `override`: the content type
    id: int = 0  # given by the sandbox
    until: float | None = None  # given by the sandbox: Unix seconds
    waiting: int = 0  # given by the sandbox: requests that it holds now

    @property
    def active(self) -> bool:
        """Whether it can still hit a request."""
        return self.times != 0 and not self.expired

    @property
    def expired(self) -> bool:
        """Whether its seconds are over."""
        return self.until is not None and time.time() >= self.until

    def as_outcome(self) -> Outcome:
        """A `batch_outcome` fault as the outcome that a batch keeps."""
        assert self.outcome is not None
        return Outcome(status=self.outcome, fraction=self.fraction)


_decode_fault = msgspec.json.Decoder(Fault).decode


class Faults:
    """The faults that are set. Lives on the event loop, so that taking one is atomic, and is written through."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._released: dict[int, asyncio.Event] = {}
        self._faults: list[Fault] = []
        for data in state.faults():
            fault = _decode_fault(data)
            fault.waiting = 0  # whoever was held died with the process
            self._faults.append(fault)
        self._next_id = max((fault.id for fault in self._faults), default=0) + 1

    def add(self, description: dict[str, Any]) -> Fault:
        """Set a fault.

        Raises:
            SandboxError: The description makes no sense; the sentence says why.
        """
        given = {key: value for key, value in description.items() if key not in ("id", "until", "waiting")}
        try:
            fault = msgspec.convert(given, Fault)
        except msgspec.ValidationError as error:
            raise SandboxError(f"This fault cannot be set: {error}.") from error
        if fault.op not in OPS and fault.op != "*":
            raise SandboxError(f"There is no operation '{fault.op}'; there are {', '.join(OPS)} and '*'.")
        if fault.kind in ("status", "lost_answer_status") and fault.status is None:
            raise SandboxError(f"A fault of kind '{fault.kind}' needs a status.")
        if fault.kind == "batch_outcome" and (fault.outcome is None or fault.op not in ("batches.create", "*")):
            raise SandboxError("A batch_outcome needs an outcome and the operation batches.create.")
        if fault.kind == "override" and not (fault.put or fault.drop or fault.body is not None):
            raise SandboxError("An override needs what to put into the answer, what to drop from it, or a body.")
        fault.id, self._next_id = self._next_id, self._next_id + 1
        fault.until = None if fault.seconds is None else time.time() + fault.seconds
        self._faults.append(fault)
        self._save(fault)
        return fault

    def active(self) -> list[Fault]:
        """The faults that can still hit a request or hold one now."""
        return [fault for fault in self._faults if fault.active or fault.waiting]

    def take(self, op: str, kinds: frozenset[str]) -> Fault | None:
        """The oldest fault that hits this request, counted down."""
        for fault in self._faults:
            if fault.kind not in kinds or fault.op not in (op, "*") or not fault.active:
                continue
            if fault.skip:
                fault.skip -= 1
                self._save(fault)
                continue
            if fault.times is not None:
                fault.times -= 1
                self._save(fault)
            return fault
        return None

    async def hold(self, fault: Fault) -> None:
        """Wait until the fault is cleared or its seconds are over."""
        released = self._released.setdefault(fault.id, asyncio.Event())
        remaining = None if fault.until is None else max(0.0, fault.until - time.time())
        fault.waiting += 1
        try:
            async with asyncio.timeout(remaining):
                await released.wait()
        except TimeoutError:
            pass
        finally:
            fault.waiting -= 1

    def clear(self, fault_id: int | None = None) -> int:
        """Remove one fault or all of them and let go of what they hold; says how many were removed."""
        gone = [fault for fault in self._faults if fault_id in (None, fault.id)]
        self._faults = [fault for fault in self._faults if fault not in gone]
        self._state.drop_faults(fault.id for fault in gone)
        for fault in gone:
            if released := self._released.pop(fault.id, None):
                released.set()
        return len(gone)

    def release(self) -> None:
        """Let go of every held request without removing a fault: the sandbox is stopping."""
        for released in self._released.values():
            released.set()

    def _save(self, fault: Fault) -> None:
        self._state.save_fault(fault.id, msgspec.json.encode(fault))
