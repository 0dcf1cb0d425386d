"""The checks of `doctor`: each finds one thing out, and never fails itself."""

from __future__ import annotations

import asyncio
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

import httpx
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.service import RPCError

from ...activities.providers.settings import DEFAULTS, ProviderSettings
from ...activities.store import Store
from ...contract import DurabatchError
from ...workers.embedded import binary, temporal_server
from ...workers.settings import Settings
from ..connection import Embed, temporal_config, translated
from ..reading import worker_polls
from .session import Session, session
from .terminal import settings as read_settings

#: A provider that is up answers a listing of its models well within this.
_PROVIDER_SECONDS = 10.0
#: Signatures, Retry-After and deadlines bear a clock that is this wrong; beyond it they begin to lie.
_CLOCK_SECONDS = 30.0


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
    mend: str | None = None

    def facts(self) -> dict[str, str | None]:
        """Return it for a program."""
        return {"name": self.name, "level": self.level.value, "fact": self.fact, "mend": self.mend}


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
    findings += await _providers(settings)
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
        return Finding(Level.WARN, "worker", f"Temporal does not tell who polls {queue!r}: {error.message}")
    if polled:
        return Finding(Level.OK, "worker", f"a worker polls task queue {queue!r}")
    return Finding(Level.WARN, "worker", f"no worker polls task queue {queue!r}", "Start one: `durabatch worker`.")


async def _store(settings: Settings) -> Finding:
    try:
        store = Store.open(settings.store.url)
        await store.check()
    except DurabatchError as error:
        return Finding(Level.FAIL, "store", error.message, "Correct [store] url, or the storage's credentials.")
    return Finding(Level.OK, "store", f"{store.url} can be written, read and deleted")


async def _providers(settings: Settings) -> list[Finding]:
    with_key = {name: provider for name, provider in sorted(settings.providers.items()) if provider.api_key}
    findings = [_key(settings, name) for name in sorted(settings.providers)]
    if not with_key:
        findings.append(
            Finding(
                Level.WARN,
                "providers",
                "no provider has a key",
                "Set OPENAI_API_KEY, or try everything without an account: --provider sandbox.",
            )
        )
    async with httpx.AsyncClient(timeout=_PROVIDER_SECONDS, follow_redirects=False) as http:
        answers = await asyncio.gather(*(_reach(http, provider) for provider in with_key.values()))
    findings += [finding for finding, _ in answers]
    skews = [skew for _, skew in answers if skew is not None]
    if skews:
        findings.append(_clock(min(skews, key=abs)))
    return findings


def _key(settings: Settings, name: str) -> Finding:
    provider = settings.providers[name]
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
        provider.name in DEFAULTS and provider.model_fields_set <= {"name", "kind", "api_key"}
    )


async def _reach(http: httpx.AsyncClient, provider: ProviderSettings) -> tuple[Finding, float | None]:
    """Ask a provider for its models; return what that shows, and how far its clock is ahead of ours in seconds."""
    name = f"provider {provider.name}"
    key = provider.api_key.get_secret_value() if provider.api_key else ""
    if provider.kind == "anthropic":
        url, headers = f"{provider.url}/v1/models", {"x-api-key": key, "anthropic-version": "2023-06-01"}
    else:
        url, headers = f"{provider.url}/models", {"authorization": f"Bearer {key}"}
    try:
        answer = await http.get(url, headers={**provider.headers, **headers})
    except (httpx.HTTPError, ValueError) as error:
        # ValueError: a key with characters that no header may hold. Its message would quote the key.
        return (
            Finding(
                Level.FAIL,
                name,
                f"{provider.url} cannot be reached ({type(error).__name__})",
                "Check base_url, the network and the proxy variables.",
            ),
            None,
        )
    skew = _skew(answer)
    code = answer.status_code
    if code in (401, 403):
        mend = f"Put a valid key into {provider.key_variable}."
        return Finding(Level.FAIL, name, f"{provider.url} does not accept the key (HTTP {code})", mend), skew
    if code >= 500 or code == 429:
        return Finding(
            Level.WARN, name, f"{provider.url} answers HTTP {code} now", "Batches wait until it recovers."
        ), skew
    return Finding(Level.OK, name, f"{provider.url} answers"), skew


def _skew(answer: httpx.Response) -> float | None:
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return None
    return (theirs - datetime.now(UTC)).total_seconds() if theirs.tzinfo else None


def _clock(skew: float) -> Finding:
    if abs(skew) <= _CLOCK_SECONDS:
        return Finding(Level.OK, "clock", "agrees with the provider's")
    return Finding(
        Level.WARN,
        "clock",
        f"differs by {abs(skew):.0f} s from the provider's",
        "Let this machine set its clock by NTP.",
    )
