"""What calls providers: a folder and a line in `kinds` for each kind, and what they share."""

from collections.abc import Callable
from importlib import import_module

from .base import (
    BatchApi,
    Capabilities,
    Content,
    Creation,
    FileApi,
    MarkedBatch,
    MarkerListing,
    Provider,
    ResultFile,
    RowFormat,
    StoredFile,
    Wanted,
)
from .kinds import KINDS
from .outcome import CacheWrites, Outcome, RowFailure, RowResponse, RowTokens
from .settings import ProviderSettings


def open_provider(settings: ProviderSettings) -> Provider:
    """Return the adapter of a provider's kind, with connections of its own; close it after use.

    Raises:
        ConfigurationError: no request can ever be sent with these settings, or in this environment.
    """
    adapter = import_module(f".{KINDS[settings.kind].folder}", __name__)
    opened: Callable[[ProviderSettings], Provider] = adapter.open_provider
    return opened(settings)


def row_format(kind: str) -> RowFormat:
    """Return how results of a kind of providers are read, by whoever has no account there."""
    adapter = import_module(f".{KINDS[kind].folder}", __name__)
    made: Callable[[], RowFormat] = adapter.row_format
    return made()


__all__ = [
    "KINDS",
    "BatchApi",
    "CacheWrites",
    "Capabilities",
    "Content",
    "Creation",
    "FileApi",
    "MarkedBatch",
    "MarkerListing",
    "Outcome",
    "Provider",
    "ProviderSettings",
    "ResultFile",
    "RowFailure",
    "RowFormat",
    "RowResponse",
    "RowTokens",
    "StoredFile",
    "Wanted",
    "open_provider",
    "row_format",
]
