"""The way to Temporal: the one that its own environment configuration names, or the embedded one of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConnectConfig
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from ..contract import BatchNotFound, ConfigurationError, DurabatchError
from ..workers.background import IDLE
from ..workers.embedded import FOLDER, Embedded, embedded, temporal_server
from .temporal_config import temporal_config

#: A server in reach answers in well under a second; beyond this, something swallows the packets.
_CONNECT = timedelta(seconds=10)

#: Statuses with which a server that is down, or too busy, answers: the same call may succeed later.
PASSING = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.CANCELLED,
    }
)


class TemporalUnavailable(DurabatchError):
    """Temporal cannot be reached."""

    code = "temporal_unavailable"
    retryable = True


class Embed(StrEnum):
    """When the embedded Temporal is used, if no other is configured."""

    ALWAYS = "always"  #: It is started if it does not run.
    KEPT = "kept"  #: It is started if this folder has its database.
    RUNNING = "running"  #: It must run already.


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A connected Temporal client, and where it is connected to."""

    client: Client
    address: str  #: host:port.
    embedded: Embedded | None  #: The embedded server, where it is that one.


#: Clients whose namespace is known to be there, and those of an embedded server.
_namespace_found: weakref.WeakSet[Client] = weakref.WeakSet()
_to_embedded: weakref.WeakSet[Client] = weakref.WeakSet()
#: Seconds that a server which has only just begun is given to find its namespace, and between two looks.
_NAMESPACE_SECONDS, _NAMESPACE_LOOK = 2.0, 0.2


def worker_command(client: Client) -> str:
    """Return the command that runs a worker for this client's Temporal, for a sentence."""
    return "`durabatch dev` in this folder" if client in _to_embedded else "`durabatch worker`"


@asynccontextmanager
async def connection(
    embed: Embed = Embed.RUNNING,
    *,
    folder: Path = FOLDER,
    runtime: Runtime | None = None,
    idle: timedelta = IDLE,
    server: Awaitable[Embedded] | None = None,
) -> AsyncIterator[Connection]:
    """Connect to the configured Temporal; if none is configured, to the embedded one.

    Args:
        embed: when the embedded server is used.
        folder: where it keeps its state.
        runtime: the SDK's runtime; its default one if None.
        idle: how long an embedded server goes on when its last user was killed.
        server: the embedded server, where the caller is starting it already. `embed`, `folder` and `idle` then do not
            matter.

    Raises:
        ConfigurationError: no Temporal is configured, and `embed` allows no embedded one.
        TemporalUnavailable: it cannot be reached.
    """
    config = temporal_config()
    async with contextlib.AsyncExitStack() as stack:
        own_server = await server if server is not None and not config else None
        if not config and own_server is None:
            own = temporal_server(folder)
            if not (embed is Embed.ALWAYS or own.alive() or (embed is Embed.KEPT and Path(own.mark).exists())):
                raise ConfigurationError(
                    "No Temporal is configured, and none runs in this folder: set TEMPORAL_ADDRESS, or "
                    "start one here with `durabatch dev`."
                )
            own_server = await stack.enter_async_context(embedded(folder, idle))
        if own_server is not None:
            config = ClientConnectConfig(target_host=own_server.address)
        address = config["target_host"]
        try:
            client = await Client.connect(
                **config, data_converter=pydantic_data_converter, connect_timeout=_CONNECT, runtime=runtime
            )
        except RuntimeError as error:
            raise TemporalUnavailable(
                f"Temporal at {address} cannot be reached ({_reason(error)}): is it running, and is its address right?"
            ) from None
        if own_server is not None:
            _namespace_found.add(client)  # the server makes it before it answers at all
            _to_embedded.add(client)
        else:
            await _find_namespace(client)
        yield Connection(client=client, address=address, embedded=own_server)


async def _find_namespace(client: Client) -> None:
    """Wait a little while a server that answers does not find the namespace: one that has only just begun does so.

    Whatever else it answers, and a namespace that is not there, the first real call reports.
    """
    until = time.monotonic() + _NAMESPACE_SECONDS
    while time.monotonic() < until:
        try:
            await client.count_workflows("WorkflowId = ''", rpc_timeout=timedelta(seconds=_NAMESPACE_SECONDS))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND and "Namespace" in error.message:
                await asyncio.sleep(_NAMESPACE_LOOK)
                continue
        else:
            _namespace_found.add(client)
        return


@contextlib.contextmanager
def translated(client: Client, batch_id: str | None = None) -> Iterator[None]:
    """Turn what Temporal's client raises within the block into errors of the contract.

    Raises:
        BatchNotFound: Temporal does not know the batch.
        TemporalUnavailable: it does not answer; the same call may succeed later.
        DurabatchError: it refused the call.
    """
    address, namespace = client.service_client.config.target_host, client.namespace
    try:
        yield
        _namespace_found.add(client)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND and "Namespace" in error.message:
            if client in _namespace_found:  # a busy server says so when it could not read its database in time
                raise TemporalUnavailable(
                    f"Temporal at {address} does not find namespace {namespace!r}, which was there before."
                ) from None
            raise ConfigurationError(
                f"Temporal at {address} has no namespace {namespace!r}: correct TEMPORAL_NAMESPACE."
            ) from None
        if error.status == RPCStatusCode.NOT_FOUND and batch_id is not None:
            raise BatchNotFound(f"There is no batch {batch_id!r} in namespace {namespace!r} at {address}.") from None
        if error.status in PASSING:
            raise TemporalUnavailable(f"Temporal at {address} does not answer ({_reason(error)}).") from None
        if error.status in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED):
            raise ConfigurationError(
                f"Temporal at {address} does not let us into namespace {namespace!r}: check "
                "TEMPORAL_API_KEY or the TLS certificate."
            ) from None
        raise DurabatchError(f"Temporal at {address} refused the call: {error.message}.") from None


def _reason(error: Exception) -> str:
    text = str(error)
    for needle, reason in (
        ("ConnectionRefused", "connection refused"),
        ("Connection refused", "connection refused"),
        ("dns error", "there is no such host"),
        ("TimedOut", "no answer"),
        ("imeout", "no answer"),
    ):
        if needle in text:
            return reason
    return re.sub(r"\s+", " ", text.removeprefix("Failed client connect: "))[:160]
