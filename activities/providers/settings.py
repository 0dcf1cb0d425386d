"""A provider as durabatch.toml describes it: `[providers.NAME]`."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ...contract import Duration

#: Where each kind lives unless the configuration says otherwise, and the usual environment variable of its key.
DEFAULTS = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
}


class ProviderSettings(BaseModel):
    """One named connection. The key itself is read from the environment, once, when the worker starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, description="The name that specs use.")]
    kind: Annotated[Literal["openai", "anthropic"], Field(description="Which adapter speaks to it.")]
    base_url: Annotated[str, Field(description="Root of its API.")] = ""
    api_key_env: Annotated[str, Field(description="The environment variable that holds the key.")] = ""
    api_key: Annotated[SecretStr | None, Field(exclude=True, description="Filled from api_key_env, never written.")] = (
        None
    )
    account: Annotated[
        str | None,
        Field(description="A name for the account, so that a new key of the same account goes on with old batches."),
    ] = None
    also_accounts: Annotated[
        tuple[str, ...], Field(description="Digests of earlier keys whose batches this key may go on with.")
    ] = ()
    timeout: Annotated[Duration, Field(description="Longest silence of the provider within one call.")] = timedelta(
        seconds=60
    )
    settle: Annotated[
        Duration, Field(description="After a lost answer: how long until a listing surely shows a new batch.")
    ] = timedelta(seconds=60)
    max_rows: Annotated[int | None, Field(ge=1, description="Rows a provider batch holds at most.")] = None
    max_bytes: Annotated[int | None, Field(ge=1024, description="Bytes of a provider batch at most.")] = None
    max_enqueued_tokens: Annotated[
        int | None, Field(ge=1, description="Input tokens that the account may have enqueued for one model.")
    ] = None
    max_parallel_shards: Annotated[int, Field(ge=1, le=200, description="Shards of one batch under way.")] = 8
    batch_discount: Annotated[float, Field(ge=0, le=1, description="Share of the list price that a batch saves.")] = 0.5
    price_provider: Annotated[
        str | None, Field(description="Whose prices apply, in genai-prices' names; the kind by default.")
    ] = None

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("must be a URL such as https://api.openai.com/v1")
        return value.rstrip("/")

    @property
    def url(self) -> str:
        """Root of the API, without a slash at the end."""
        return self.base_url or DEFAULTS[self.kind][0]

    @property
    def key_variable(self) -> str:
        """Name of the environment variable that holds the key."""
        return self.api_key_env or DEFAULTS[self.kind][1]

    @property
    def fingerprint(self) -> str:
        """Digest of the account: kind, base URL and key (or the account's name, where the configuration gives one)."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        who = f"account:{self.account}" if self.account else "key:" + hashlib.sha256(key.encode()).hexdigest()
        return hashlib.sha256(f"{self.kind}\n{self.url}\n{who}".encode()).hexdigest()[:16]

    def owns(self, account: str) -> bool:
        """Whether batches of this account may be asked for with this key."""
        return account == self.fingerprint or account in self.also_accounts

    def redacted(self) -> dict[str, Any]:
        """Return what may be printed."""
        return {
            **self.model_dump(mode="json", exclude_defaults=True),
            "url": self.url,
            "account": self.fingerprint,
        }
