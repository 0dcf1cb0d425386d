"""OpenAI's Files and Batches, its ordinary endpoints, and every server that speaks them.

Protocol: https://platform.openai.com/docs/api-reference/batch and the types of the `openai` package (2026). A batch
names an uploaded file, carries the marker in its metadata, and ends with an output file and an error file.
"""

from __future__ import annotations

from datetime import datetime

from ....contract.steps import Search
from .. import parsing
from ..base import Capabilities, Provider, RowFormat
from ..http import Http
from ..settings import ProviderSettings
from .batches import OpenAIBatches
from .files import OpenAIFiles
from .live import OpenAILive
from .rows import EMBEDDINGS, REQUIRED, OpenAIRows, is_azure, is_openai

#: Limits of a batch: https://platform.openai.com/docs/guides/batch (50,000 requests, 200 MB).
MAX_ROWS = 50_000
MAX_BYTES = 200 * 1000 * 1000
#: Inputs over all rows of a batch (the `openai` package, BatchCreateParams.endpoint).
MAX_EMBEDDING_INPUTS = 50_000


def row_format() -> RowFormat:
    """Return how results are read, without an account."""
    return OpenAIRows(azure=False, cap="max_tokens")  # only its results are read


def open_provider(settings: ProviderSettings) -> Provider:
    """Return an account at OpenAI, or at a server with the same API.

    Raises:
        ConfigurationError: no request can ever be sent with these settings, or in this environment.
    """
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    http = Http(settings, {"Authorization": f"Bearer {key}"})

    async def probe() -> datetime | None:
        await http.call("GET", "/models", read=parsing.answered)
        return http.clock

    azure = is_azure(settings.url)
    batches = OpenAIBatches(http, settings.listing_lag)
    return Provider(
        name=settings.name,
        capabilities=Capabilities(
            search=Search.MARKER,
            endpoints=frozenset(REQUIRED),
            max_rows=min(settings.max_rows or MAX_ROWS, MAX_ROWS),
            max_bytes=min(settings.max_bytes or MAX_BYTES, MAX_BYTES),
            max_tokens=settings.max_enqueued_tokens,
            max_inputs={EMBEDDINGS: MAX_EMBEDDING_INPUTS},
            one_model=True,
        ),
        rows=OpenAIRows(azure=azure, cap="max_completion_tokens" if azure or is_openai(settings.url) else "max_tokens"),
        batch_api=batches,
        files=OpenAIFiles(http),
        markers=batches,
        live=OpenAILive(settings),
        probe=probe,
        close=http.close,
    )
