"""Anthropic's Message Batches.

Protocol: https://platform.claude.com/docs/en/api/messages/batches and the types of the `anthropic` package (2026). The
rows go inline with the create. There are no files and no metadata, so no listing shows a marker.
"""

from __future__ import annotations

from datetime import datetime

from ....contract.steps import Search
from .. import parsing
from ..base import Capabilities, Provider, RowFormat
from ..http import Http
from ..settings import ProviderSettings
from .batches import AnthropicBatches
from .live import AnthropicLive
from .rows import CHAT, HEAD, MESSAGES, TAIL, AnthropicRows

#: The newer version, 2026-10-21, only takes away: it refuses temperature, top_p and top_k, which rows may carry
#: (https://platform.claude.com/docs/en/api/migration-2026-10-21).
VERSION = "2023-06-01"
#: Limits of a batch: https://platform.claude.com/docs/en/build-with-claude/batch-processing (100,000 requests, 256 MB).
MAX_ROWS = 100_000
MAX_BYTES = 256 * 1000 * 1000


def row_format() -> RowFormat:
    """Return how results are read, without an account."""
    return AnthropicRows()


def open_provider(settings: ProviderSettings) -> Provider:
    """Return one workspace at Anthropic: a key belongs to one, and sees its batches only.

    Raises:
        ConfigurationError: no request can ever be sent with these settings, or in this environment.
    """
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    headers = {"x-api-key": key, "anthropic-version": VERSION}
    http = Http(settings, headers)

    async def probe() -> datetime | None:
        await http.call("GET", "/v1/models", params={"limit": 1}, read=parsing.answered)
        return http.clock

    return Provider(
        name=settings.name,
        capabilities=Capabilities(
            search=Search.PROVISIONAL,
            endpoints=frozenset({CHAT, MESSAGES}),
            max_rows=min(settings.max_rows or MAX_ROWS, MAX_ROWS),
            max_bytes=min(settings.max_bytes or MAX_BYTES, MAX_BYTES) - len(HEAD + TAIL),
            max_tokens=settings.max_enqueued_tokens,
            one_model=False,
        ),
        rows=AnthropicRows(),
        batch_api=AnthropicBatches(http),
        live=AnthropicLive(settings, headers),
        probe=probe,
        close=http.close,
    )
