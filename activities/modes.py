"""Which mode a batch is run in, and whether its provider has it. Pure."""

from __future__ import annotations

from ..contract import BatchSpec, InvalidSpec, Mode
from .providers import Provider, ProviderSettings


def choose_mode(spec: BatchSpec, provider: Provider, settings: ProviderSettings) -> Mode:
    """Return the mode of a batch: the spec's, else the provider's in the configuration, else batch where it has one.

    Raises:
        InvalidSpec: the provider does not have the mode.
    """
    mode = spec.mode or default_mode(provider, settings)
    if mode is Mode.DIRECT and provider.live is None:
        raise InvalidSpec(
            f"Provider {spec.provider} has no direct mode: its kind {settings.kind} answers batches only. Leave mode "
            'out, or say mode = "batch"; its rows cannot be tried first.'
        )
    if mode is Mode.BATCH and provider.batch_api is None:
        raise InvalidSpec(
            f"Provider {spec.provider} has no batch API: its kind {settings.kind} answers rows one by one only. Leave "
            'mode out, or say mode = "direct".'
        )
    return mode


def default_mode(provider: Provider, settings: ProviderSettings) -> Mode:
    """Return the mode of batches whose spec names none."""
    return settings.mode or (Mode.DIRECT if provider.batch_api is None else Mode.BATCH)


def check_on_expired(spec: BatchSpec, provider: Provider, mode: Mode) -> None:
    """Refuse a spec whose provider cannot finish directly what its batches leave over, although it is to.

    Raises:
        InvalidSpec: it has no direct mode, or not for the endpoint.
    """
    if mode is Mode.DIRECT or spec.retry.on_expired is Mode.BATCH:
        return
    if provider.live is None or spec.endpoint not in provider.live.endpoints:
        raise InvalidSpec(
            f"Provider {spec.provider} has no direct mode for {spec.endpoint}: leave retry.on_expired out."
        )


def check_endpoint(spec: BatchSpec, provider: Provider, mode: Mode) -> None:
    """Refuse an endpoint that the provider does not have in a mode.

    Raises:
        InvalidSpec: it is another one.
    """
    direct = mode is Mode.DIRECT and provider.live is not None
    endpoints = provider.live.endpoints if direct and provider.live else provider.capabilities.endpoints
    if spec.endpoint not in endpoints:
        verb = "call" if direct else "batch"
        raise InvalidSpec(
            f"Provider {spec.provider} cannot {verb} {spec.endpoint}: choose one of {', '.join(sorted(endpoints))}."
        )
