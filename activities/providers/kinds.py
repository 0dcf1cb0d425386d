"""The kinds of providers, one entry each; the rest of a kind is in its folder, and no other module names a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the configuration may leave out about a provider of this kind, and which adapter calls it."""

    base_url: str  #: Root of its API, unless the configuration gives another.
    key_variable: str  #: The environment variable that usually holds its key.
    prices: str  #: Its id in genai-prices.
    #: The package beside this module whose `open_provider` returns the adapter. A name, not the adapter itself: the
    #: settings need the lines above before, and often without, the code that calls a provider.
    folder: str
    webhooks: bool = False  #: Whether it can send a webhook at the end of a batch.
    account_headers: tuple[str, ...] = ()  #: Headers that choose the account beside the key, in lower case.


KINDS: Mapping[str, Kind] = {
    "openai": Kind(
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        prices="openai",
        folder="openai",
        webhooks=True,
        account_headers=("openai-organization", "openai-project"),  # another project has other files and batches
    ),
    "anthropic": Kind(
        base_url="https://api.anthropic.com",
        key_variable="ANTHROPIC_API_KEY",
        prices="anthropic",
        folder="anthropic",
    ),
}
