"""The checks of `doctor`: each finds one thing out, and never fails itself."""

from __future__ import annotations

import asyncio
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.service import RPCError

from ..activities.providers import ProviderSettings, open_provider
from ..activities.providers.kinds import KINDS
from ..activities.providers.settings import NO_KEY
from ..activities.store import Store, identity_of
from ..activities.task_queues import worker_polls
from ..clients.connection import Embed, translated, worker_command
from ..clients.temporal_config import temporal_config
from ..contract import (
    AuthenticationFailed,
    ConfigurationError,
    DurabatchError,
    ProviderError,
    ProviderNotFound,
    QueueFull,
    RateLimited,
)
from ..workers.embedded import binary, temporal_server
from ..workers.settings import Settings
from . import stand_in
from .session import Session, session
from .terminal import settings as read_settings

#: How long a provider may take to answer a listing of its models.
_PROVIDER_PATIENCE = timedelta(seconds=10)
#: Signatures, Retry-After and deadlines tolerate a clock that is this far off; beyond it they become wrong.
_CLOCK_SECONDS = 30.0
#: How a base URL ends that names a version of the API.
_VERSION = re.compile(r"/v\d\w*$")


class Level(StrEnum):
    """What a finding means."""

    OK = "ok"
    WARN = "warn"  #: It works, or will, but somebody should know.
    FAIL = "fail"  #: Batches will not run.


@dataclass(frozen=True)
class Finding:
    """One thing that was found out."""

    level: Level
    name: str
    fact: str
    fix: str | None = None

    def facts(self) -> dict[str, str | None]:
        """Return it for a program."""
        return {"name": self.name, "level": self.level.value, "fact": self.fact, "fix": self.fix}


async def examine() -> list[Finding]:
    """Check everything and return the findings, in the order in which things depend on each other."""
    findings = [_python()]
    try:
        settings = read_settings()
    except DurabatchError as error:
        return [*findings, Finding(Level.FAIL, "configuration", error.message, "Correct the file and try again.")]
    source = settings.source or "none (defaults)"
    findings.append(Finding(Level.OK, "configuration", f"{source}; providers: {', '.join(sorted(settings.providers))}"))
    findings += await _temporal(settings)
    findings.append(await _store(settings))
    findings += await _providers(stand_in.beside(settings))
    return findings


def _python() -> Finding:
    from durabatch import __version__

    return Finding(Level.OK, "python", f"Python {platform.python_version()}, durabatch {__version__}")


async def _temporal(settings: Settings) -> list[Finding]:
    try:
        if not temporal_config() and not temporal_server().alive():
            return [
                Finding(Level.OK, "temporal", f"none is configured; `run` and `dev` embed one ({binary()})"),
                Finding(Level.OK, "worker", "`run` and `dev` bring their own"),
            ]
        async with session(Embed.RUNNING, settings) as opened:
            return [await _namespace(opened), await _worker(opened)]
    except DurabatchError as error:
        return [
            Finding(Level.FAIL, "temporal", error.message, "Start it, or correct TEMPORAL_ADDRESS or temporal.toml.")
        ]


async def _namespace(opened: Session) -> Finding:
    client = opened.connection.client
    with translated(client):
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    which = "embedded" if opened.embedded else "configured"
    return Finding(Level.OK, "temporal", f"{opened.connection.address} ({which}), namespace {client.namespace!r}")


async def _worker(opened: Session) -> Finding:
    queue = opened.settings.worker.task_queue
    try:
        polled = await worker_polls(opened.connection.client, queue)
    except RPCError as error:
        return Finding(Level.WARN, "worker", f"Temporal does not say who polls {queue!r}: {error.message}")
    if polled:
        return Finding(Level.OK, "worker", f"a worker polls task queue {queue!r}")
    start = f"Start one: {worker_command(opened.connection.client)}."
    return Finding(Level.WARN, "worker", f"no worker polls task queue {queue!r}", start)


async def _store(settings: Settings) -> Finding:
    try:
        store = Store.open(settings.store.url)
        await store.check()
        identity = await identity_of(store)
    except DurabatchError as error:
        return Finding(Level.FAIL, "store", error.message, "Correct [store] url, or the storage's credentials.")
    whose = (
        f"its identity is {identity[:8]}…"
        if identity
        else "it has no identity yet: no batch was ever started in it, or it is not mounted"
    )
    return Finding(Level.OK, "store", f"{store.url} can be written, read and deleted; {whose}")


async def _providers(settings: Settings) -> list[Finding]:
    with_key = {name: provider for name, provider in sorted(settings.providers.items()) if provider.api_key}
    findings = [_key(settings, name) for name in sorted(settings.providers)]
    if not with_key:
        variables = " or ".join(kind.key_variable for kind in KINDS.values())
        findings.append(
            Finding(
                Level.WARN,
                "providers",
                "no provider has a key",
                f"Set {variables}, or try everything without an account: --provider sandbox.",
            )
        )
    answers = await asyncio.gather(*(_reach(provider) for provider in with_key.values()))
    findings += [finding for finding, _ in answers]
    skews = [skew for _, skew in answers if skew is not None]
    if skews:
        findings.append(_clock(min(skews, key=abs)))
    return findings


def _key(settings: Settings, name: str) -> Finding:
    provider = settings.providers[name]
    if provider.api_key and provider.api_key.get_secret_value() == NO_KEY:
        return Finding(Level.OK, f"key of {name}", "is not needed")
    if provider.api_key:
        return Finding(Level.OK, f"key of {name}", "is there")
    try:
        settings.provider(name)
    except DurabatchError as error:
        # A provider that nobody wrote down is not missed.
        level = Level.OK if _implicit(provider, settings) else Level.FAIL
        return Finding(level, f"key of {name}", error.message if level is Level.FAIL else "not set; not used")
    return Finding(Level.OK, f"key of {name}", "is not needed")


def _implicit(provider: ProviderSettings, settings: Settings) -> bool:
    return settings.source is None or (
        provider.name in KINDS and provider.model_fields_set <= {"name", "kind", "api_key", "webhook_secret"}
    )


async def _reach(provider: ProviderSettings) -> tuple[Finding, float | None]:
    """Make the adapter's own cheapest call; return what it shows, and how far its clock is ahead of ours in seconds."""
    name = f"provider {provider.name}"
    try:
        skew = _skew(await _probe(provider))
    except ConfigurationError as error:
        return Finding(Level.FAIL, name, error.message, "Correct it and start the workers again."), None
    except (RateLimited, QueueFull) as error:
        return Finding(Level.WARN, name, error.message, "Batches wait until it recovers."), None
    except AuthenticationFailed as error:
        return Finding(
            Level.FAIL,
            name,
            error.message,
            f"Put a valid key into {provider.key_variable}, and allow it to use batches.",
        ), None
    except ProviderError as error:
        if error.status is None:
            fix = "Check its base_url, the network, the proxy variables and the certificates."
            return Finding(Level.FAIL, name, f"{provider.url}: {error.message}", fix), None
        if error.status >= 500:
            return Finding(Level.WARN, name, error.message, "Batches wait until it recovers."), None
        if (better := await _better(provider)) is not None:
            fix = f'Write base_url = "{better}" in [providers.{provider.name}].'
            return Finding(Level.FAIL, name, f"{provider.url}: {error.message} It answers at {better}.", fix), None
        # Some servers have no list of models; an answer that is not JSON, or has moved, is not the API.
        level = Level.WARN if isinstance(error, ProviderNotFound) else Level.FAIL
        fix = f"Correct the base_url of [providers.{provider.name}], unless batches run all the same."
        return Finding(level, name, f"{provider.url}: {error.message}", fix), None
    return Finding(Level.OK, name, f"{provider.url} answers"), skew


async def _probe(provider: ProviderSettings) -> datetime | None:
    # A server that is up answers well within this; batches are more patient.
    adapter = open_provider(provider.model_copy(update={"timeout": min(provider.timeout, _PROVIDER_PATIENCE)}))
    try:
        return await adapter.probe()
    finally:
        await adapter.close()


async def _better(provider: ProviderSettings) -> str | None:
    """Return the base URL that was probably meant, if the provider answers there: some kinds' end in /v1."""
    version = urlsplit(KINDS[provider.kind].base_url).path
    meant = _VERSION.sub("", provider.url) + version
    if meant == provider.url:
        return None
    _, mark, query = provider.base_url.partition("?")
    try:
        await _probe(provider.model_copy(update={"base_url": meant + mark + query}))
    except DurabatchError:
        return None
    return meant + mark + query


def _skew(theirs: datetime | None) -> float | None:
    return (theirs - datetime.now(UTC)).total_seconds() if theirs else None


def _clock(skew: float) -> Finding:
    if abs(skew) <= _CLOCK_SECONDS:
        return Finding(Level.OK, "clock", "agrees with the provider's")
    return Finding(
        Level.WARN,
        "clock",
        f"differs by {abs(skew):.0f} s from the provider's",
        "Let this machine set its clock by NTP.",
    )
