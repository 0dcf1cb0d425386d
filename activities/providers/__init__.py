"""What calls providers: a folder and a line in `kinds` for each kind, and what they share."""

from collections.abc import Callable
from importlib import import_module

from .base import (
    Capabilities,
    Content,
    Creation,
    Download,
    MarkedBatch,
    Outcome,
    Provider,
    RowTokens,
    StoredFile,
    Wanted,
)
from .kinds import KINDS
from .settings import ProviderSettings


def open_provider(settings: ProviderSettings) -> Provider:
    """Return the adapter of a provider's kind, with connections of its own; close it after use.

    Raises:
        ConfigurationError: no request can ever be sent with these settings, or in this environment.
    """
    folder, _, name = KINDS[settings.kind].adapter.partition(":")
    adapter: Callable[[ProviderSettings], Provider] = getattr(import_module(f".{folder}", __name__), name)
    return adapter(settings)


__all__ = [
    "KINDS",
    "Capabilities",
    "Content",
    "Creation",
    "Download",
    "MarkedBatch",
    "Outcome",
    "Provider",
    "ProviderSettings",
    "RowTokens",
    "StoredFile",
    "Wanted",
    "open_provider",
]
