"""`gateway` and `gateway-key`: the HTTP door, and the keys to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import print_json, print_message, print_output, run_async, until_stopped
from .terminal import settings as read_settings

if TYPE_CHECKING:
    from ..workers.settings import Settings
    from .session import Session

#: Pause before Temporal is tried again by a gateway that was started before it, in seconds.
_PAUSE = 2.0
#: Random bytes of a key.
_KEY_BYTES = 32


def register(app: typer.Typer) -> None:
    """Add the subcommands."""
    app.command(epilog="Example:  durabatch gateway --provider sandbox")(gateway)
    app.command("gateway-key", epilog="Example:  durabatch gateway-key search")(gateway_key)


def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on; other than loopback only with keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8787,
    provider: Annotated[
        str | None, typer.Option(help="Run every batch that names no provider at this one, whatever the routes say.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Serve Files and Batches in OpenAI's shape, and Message Batches in Anthropic's, until Ctrl-C.

    With no Temporal configured, it runs an embedded one and a worker too; beside a configured one it is only the door.
    """
    run_async(_gateway(host, port, provider, json_))


async def _gateway(host: str, port: int, provider: str | None, as_json: bool) -> None:
    import importlib.util

    from ..activities.providers.settings import is_loopback
    from ..contract import ConfigurationError

    if importlib.util.find_spec("starlette") is None:
        raise ConfigurationError('The gateway is not installed: pip install "durabatch[gateway]".')
    settings = read_settings()
    if not settings.gateway.keys and not is_loopback(f"http://{f'[{host}]' if ':' in host else host}"):
        raise ConfigurationError(
            f"Without keys the gateway serves loopback only, and {host} is not: make a key with `durabatch gateway-key "
            "TENANT` and put it into durabatch.toml, or leave out --host."
        )
    from ..gateway.app import create_app
    from ..gateway.context import Context
    from ..gateway.server import serving

    async with _opened(settings, provider) as opened:
        context = Context(opened.settings, opened.client, provider)
        async with context.upkeep.running(), serving(create_app(context), host, port) as url:
            base_url = f"{url}/v1"
            if as_json:
                print_json(
                    {"base_url": base_url, "temporal": opened.connection.address, "store": opened.client.store.url}
                )
            else:
                print_output(f"OPENAI_BASE_URL={base_url}")
            whose = f"{len(settings.gateway.keys)} keys" if settings.gateway.keys else "no key needed"
            worker = "a worker runs here" if opened.embedded else f"Temporal at {opened.connection.address}"
            print_message(f"The gateway serves {base_url} ({whose}, {worker}). Ctrl-C ends it; batches are kept.")
            if provider is None and not settings.gateway.routes:
                print_message(
                    "warning: no model has a provider, and each create is refused: add [[gateway.routes]] to "
                    "durabatch.toml, or start it with --provider NAME."
                )
            if opened.embedded:
                _warn_of_unusable(settings, provider)
            await until_stopped()


def _routed(settings: Settings, provider: str | None) -> list[str]:
    """Return the providers that batches may be run at."""
    return sorted({route.provider for route in settings.gateway.routes} | ({provider} if provider else set()))


def _warn_of_unusable(settings: Settings, provider: str | None) -> None:
    """Say which of the providers the worker of this process cannot call, for want of a key for example."""
    from ..contract import ConfigurationError
    from . import stand_in
    from .run import check_provider

    for name in _routed(settings, provider):
        try:
            if not stand_in.wanted(name, settings):
                check_provider(settings, name)
        except ConfigurationError as error:
            print_message(f"warning: {error.message} Batches that lead to {name} fail.")


@asynccontextmanager
async def _opened(settings: Settings, provider: str | None) -> AsyncIterator[Session]:
    """Connect to the configured Temporal as soon as it is there; or to the embedded one, with a worker."""
    import asyncio

    from ..clients.connection import Embed, TemporalUnavailable
    from ..clients.temporal_config import temporal_config
    from ..workers.embedded import embedded
    from . import stand_in
    from .ahead import ahead
    from .session import log_to_file, log_to_stderr, session

    sandbox = any(stand_in.wanted(name, settings) for name in _routed(settings, provider))
    if provider is not None and not stand_in.wanted(provider, settings) and provider not in settings.providers:
        settings.provider(provider)  # says which there are
    async with AsyncExitStack() as stack:
        if not temporal_config():
            server = await stack.enter_async_context(ahead(embedded(idle=settings.worker.embedded_idle)))
            knowing = await stack.enter_async_context(ahead(stand_in.running(settings))) if sandbox else None

            from .embedded_worker import embedded_worker

            log_to_file(settings.worker.log_format)
            opened = await stack.enter_async_context(session(Embed.ALWAYS, settings, server))
            await stack.enter_async_context(embedded_worker(opened, knowing))
            yield opened
            return
        log_to_stderr(settings.worker.log_format)
        waited = False
        while True:
            try:
                opened = await stack.enter_async_context(session(Embed.RUNNING, settings))
                break
            except TemporalUnavailable as error:
                if not waited:
                    print_message(f"{error.message} Trying on.")
                waited = True
                await asyncio.sleep(_PAUSE)
        yield opened


def gateway_key(
    tenant: Annotated[str, typer.Argument(help="Who it is for: small letters, digits, _ and -.")],
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Make a key for the gateway, and the lines of durabatch.toml that know it.

    The key is shown once: the configuration holds only its SHA-256.
    """
    import hashlib
    import secrets

    from ..contract import ConfigurationError
    from ..contract.gateway_layout import is_tenant

    if not is_tenant(tenant):
        raise ConfigurationError(
            f"{tenant[:80]!r} cannot name a tenant: begin with a small letter or digit, go on with those, _ and -, and "
            "have 40 at most."
        )
    key = f"db-{secrets.token_urlsafe(_KEY_BYTES)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    if json_:
        print_json({"tenant": tenant, "key": key, "sha256": digest})
        return
    print_message("The key, which is shown only now, for the client's OPENAI_API_KEY:")
    print_output(key)
    print_message("For the gateway's durabatch.toml:")
    print_output(f'\n[[gateway.keys]]\ntenant = "{tenant}"\nsha256 = "{digest}"')
