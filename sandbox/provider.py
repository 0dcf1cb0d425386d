"""What every route needs: the state, the faults, the worker and the counts."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Coroutine, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec
from aiohttp import web

from .calls import Calls
from .errors import Refusal
from .faults import Faults
from .limits import Meter, Rates
from .protocol import Protocol
from .settings import Settings
from .state import State
from .worker import Worker

#: The kind of counts by operation, whatever became of the requests.
REQUESTS = "requests"

#: The file of live calls, in the state's folder.
_CALLS = "calls.jsonl"
_SETTINGS = "settings"
_REVOKED = "revoked"


class Counts:
    """Counts that are written in groups."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._new: Counter[tuple[str, str]] = Counter()
        self._writing = False

    def add(self, kind: str, key: str, n: int = 1) -> None:
        """Add to a count; it is written on the event loop's next turn."""
        self._new[kind, key] += n
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self.write)

    def write(self) -> None:
        """Write what is new."""
        self._writing = False
        if self._new:
            new, self._new = self._new, Counter()
            self._state.add_counts(new)


class Provider:
    """The stand-in provider behind the routes.

    Args:
        state: Where everything is remembered.
        given: Settings given at start; they win over what was set before.
        protocols: What it speaks, by name.
    """

    def __init__(self, state: State, given: dict[str, Any], protocols: Mapping[str, Protocol]) -> None:
        self.state = state
        self._given = given
        self.settings = Settings().changed({**(state.value(_SETTINGS) or {}), **given})
        self._revoked: set[str] = set(state.value(_REVOKED) or ())
        self.faults = Faults(state)
        self.counts = Counts(state)
        self.calls = Calls(state.folder / _CALLS)
        self.rates = Rates(self.settings)
        self.meters: dict[tuple[str, str], Meter] = {}
        self.stopping = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self.worker = Worker(state, lambda: self.settings, protocols)

    def change(self, changes: dict[str, Any]) -> None:
        """Change settings, for now and for the next start."""
        self._apply(self.settings.changed(changes))
        self.state.set_value(_SETTINGS, msgspec.structs.asdict(self.settings))
        self.worker.wake()

    def _apply(self, settings: Settings) -> None:
        self.settings, self.rates = settings, Rates(settings)
        for meter in self.meters.values():
            meter.admit(settings.max_in_flight)

    def meter(self, account: str, model: str) -> Meter:
        """What counts against the served limits of an account and model."""
        found = self.meters.get((account, model))
        if found is None:
            found = self.meters[account, model] = Meter()
        return found

    def task(self, work: Coroutine[Any, Any, web.StreamResponse]) -> asyncio.Task[web.StreamResponse]:
        """Begin on what goes on until it is done, or the sandbox stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def reset(self) -> None:
        """Forget everything and go back to the settings given at start."""
        self.faults.clear()
        self.counts.write()
        await self.worker.run(self.state.wipe)
        self.faults = Faults(self.state)
        self.calls.close()
        (self.state.folder / _CALLS).unlink()
        self.calls, self.meters = Calls(self.state.folder / _CALLS), {}
        self._apply(Settings().changed(self._given))
        self._revoked = set()

    async def stop(self) -> None:
        """Stop the worker and what is under way, and write what is not written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.worker.stop()
        self.counts.write()
        self.calls.close()

    def revoke(self, key: str) -> None:
        """Refuse a key from now on."""
        self._set_revoked(self._revoked | {_digest(key)})

    def restore(self, key: str) -> None:
        """Accept a key again."""
        self._set_revoked(self._revoked - {_digest(key)})

    def _set_revoked(self, digests: set[str]) -> None:
        self._revoked = digests
        self.state.set_value(_REVOKED, sorted(digests))

    def authenticate(self, request: web.Request, protocol: Protocol) -> None:
        """Check the request's key and the headers that go with it.

        Raises:
            Refusal: There is no key, it was revoked, or a header is missing.
        """
        key = _key_of(request)
        protocol.authenticate(request, key, valid=_digest(key) not in self._revoked)


PROVIDER = web.AppKey("provider", Provider)


def provider_of(request: web.Request) -> Provider:
    """The provider that a request is for."""
    return request.app[PROVIDER]


def account_of(request: web.Request) -> str:
    """The account of a request: the first 8 hex digits of its key's SHA-256."""
    return _digest(_key_of(request))[:8]


def _key_of(request: web.Request) -> str:
    key = request.headers.get("x-api-key", "")
    if not key:
        authorization = request.headers.get("Authorization", "")
        if authorization[:7].lower() == "bearer ":
            return authorization[7:].strip()
    return key


@lru_cache(maxsize=256)
def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def new_id(prefix: str) -> str:
    """A new identifier."""
    return prefix + secrets.token_hex(12)


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON response."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


async def json_body(request: web.Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        Refusal: 400 when it is something else.
    """
    try:
        body = msgspec.json.decode(await request.read())
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refusal(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The JSON body of your request must be an object.")
    return body


def int_param(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number from the query.

    Raises:
        Refusal: 400 when it is not a number or is out of range.
    """
    given = request.query.get(name)
    if given is None:
        return default
    try:
        number = int(given)
    except ValueError:
        message = f"Invalid type for '{name}': expected an integer."
        raise Refusal(400, message, code="invalid_type", param=name) from None
    if number < low:
        message = f"Invalid '{name}': integer below minimum value. Expected a value >= {low}, but got {number} instead."
        raise Refusal(400, message, code="integer_below_min_value", param=name)
    if number > high:
        message = (
            f"Invalid '{name}': integer above maximum value. Expected a value <= {high}, but got {number} instead."
        )
        raise Refusal(400, message, code="integer_above_max_value", param=name)
    return number
