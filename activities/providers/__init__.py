"""One adapter a provider kind: what it can do, mapping functions, and a few calls."""

from collections.abc import Callable

from .anthropic import AnthropicProvider
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
from .openai import OpenAIProvider
from .settings import ProviderSettings

_KINDS: dict[str, Callable[[ProviderSettings], Provider]] = {
    "anthropic": AnthropicProvider,
    "openai": OpenAIProvider,
}


def open_provider(settings: ProviderSettings) -> Provider:
    """Return the adapter of a provider's kind, with connections of its own; close it after use."""
    return _KINDS[settings.kind](settings)


__all__ = [
    "AnthropicProvider",
    "Capabilities",
    "Content",
    "Creation",
    "Download",
    "MarkedBatch",
    "OpenAIProvider",
    "Outcome",
    "Provider",
    "ProviderSettings",
    "RowTokens",
    "StoredFile",
    "Wanted",
    "open_provider",
]
