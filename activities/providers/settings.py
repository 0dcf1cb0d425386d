"""A provider as durabatch.toml describes it: `[providers.NAME]`."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from ...contract import Duration, Mode
from .kinds import KINDS

#: What a server without keys is sent as its key: the wire protocols have no way to send none.
NO_KEY = "unused"

#: Headers that carry keys, which do not belong in a file.
_KEYS = frozenset({"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"})
#: Headers that say how a message travels and what it holds: each call has its own.
_WIRE = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer", "transfer-encoding"),
        *("upgrade", "host", "expect", "accept", "accept-encoding", "range", "if-range"),
    }
)
#: Parameters of a URL that carry keys, without their hyphens and underscores.
_KEY_PARAMETERS = frozenset(
    {
        *("key", "apikey", "xapikey", "subscriptionkey", "ocpapimsubscriptionkey", "token", "accesstoken", "authtoken"),
        *("auth", "authorization", "code", "sig", "signature", "secret", "clientsecret", "password", "pass"),
    }
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")


class ProviderSettings(BaseModel):
    """One named connection. The key itself is read from the environment, once, when the worker starts."""

    # Not even an error repeats the value: a key may have been put into the wrong place.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(min_length=1, description="The name that specs use.")]
    kind: Annotated[str, Field(description="Which adapter calls it.", examples=list(KINDS))]
    base_url: Annotated[str, Field(description="Root of its API; a query is added to every request.")] = ""
    api_key_env: Annotated[str, Field(description="The environment variable that holds the key.")] = ""
    api_key: Annotated[SecretStr | None, Field(exclude=True, description="Filled from api_key_env, never written.")] = (
        None
    )
    headers: Annotated[
        dict[str, str], Field(description="Headers that every call carries too, such as anthropic-beta; never a key.")
    ] = {}
    account: Annotated[
        str | None,
        Field(description="A name for the account, so that a new key of the same account goes on with old batches."),
    ] = None
    also_accounts: Annotated[
        tuple[str, ...], Field(description="Digests of earlier keys whose batches this key may go on with.")
    ] = ()
    timeout: Annotated[
        Duration,
        Field(
            description="Longest silence of the provider within one call; in direct mode, how long a row waits for its "
            "answer."
        ),
    ] = timedelta(seconds=60)
    listing_lag: Annotated[
        Duration, Field(description="After a lost answer: how long until a listing surely shows a new batch.")
    ] = timedelta(seconds=60)
    webhook_secret_env: Annotated[
        str,
        Field(
            description="The environment variable that holds the secret of its webhooks (whsec_…). Named, it says that "
            "the provider sends them to the gateway, so that it need not be asked often."
        ),
    ] = ""
    webhook_secret: Annotated[SecretStr | None, Field(exclude=True, description="Filled from webhook_secret_env.")] = (
        None
    )
    webhook_poll: Annotated[
        Duration, Field(description="The longest wait between two polls where it sends webhooks: 1 min to 1 day.")
    ] = timedelta(hours=2)
    max_rows: Annotated[int | None, Field(ge=1, description="Rows a provider batch holds at most.")] = None
    max_bytes: Annotated[int | None, Field(ge=1024, description="Bytes of a provider batch at most.")] = None
    max_enqueued_tokens: Annotated[
        int | None, Field(ge=1, description="Input tokens that the account may have enqueued for one model.")
    ] = None
    mode: Annotated[
        Mode | None,
        Field(description="How rows are run unless a spec says otherwise; by the batch API where the kind has one."),
    ] = None
    requests_per_minute: Annotated[
        int | None, Field(ge=1, description="Calls a minute, for the account and a model, over all workers.")
    ] = None
    tokens_per_minute: Annotated[
        int | None, Field(ge=1, description="Tokens a minute, for the account and a model, over all workers.")
    ] = None
    max_concurrent_requests: Annotated[
        int, Field(ge=1, le=100_000, description="Calls in flight, for the account and a model, over all workers.")
    ] = 256
    counts: Annotated[
        Literal["reserved", "used"],
        Field(
            description="What the server counts against the tokens a minute: what a call may use at most, when it "
            "arrives, or what it has used."
        ),
    ] = "reserved"
    idempotency_key: Annotated[
        bool,
        Field(
            description="Whether each call carries an Idempotency-Key, the same each time that its row is sent; for "
            "servers that answer a repeated call with what they answered first."
        ),
    ] = False
    check_calls: Annotated[
        bool,
        Field(
            description="Whether a short call may find out if the endpoint is there, where rows fail; false for a "
            "server that fails each such call, and answers rows."
        ),
    ] = True
    max_parallel_shards: Annotated[int, Field(ge=1, le=200, description="Shards of one batch under way.")] = 8
    batch_discount: Annotated[float, Field(ge=0, le=1, description="Share of the list price that a batch saves.")] = 0.5
    price_provider: Annotated[
        str | None, Field(description="Whose prices apply, in genai-prices' names; the kind's by default.")
    ] = None

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in KINDS:
            raise ValueError(f"must be {' or '.join(repr(kind) for kind in KINDS)}")
        return value

    @field_validator("webhook_poll")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if not timedelta(minutes=1) <= value <= timedelta(days=1):
            raise ValueError("must be between 1 minute and 1 day")
        return value

    @model_validator(mode="after")
    def _sends(self) -> Self:
        if self.webhook_secret_env and not KINDS[self.kind].webhooks:
            raise ValueError(f"webhook_secret_env cannot be given: providers of kind {self.kind!r} send no webhooks")
        return self

    @field_validator("base_url")
    @classmethod
    def _callable(cls, value: str) -> str:
        # Nothing of it is repeated: a password may be in it.
        value = value.strip()
        if not value:
            return ""
        if any(char <= " " or char == "\x7f" for char in value):
            raise ValueError("must be a URL such as https://api.openai.com/v1, without spaces or line breaks in it")
        try:
            parts = urlsplit(value)
            host, port = parts.hostname, parts.port
            (host or "").encode("idna")
        except ValueError:  # a port that is not a number up to 65535, half an IPv6 address, or a name that is too long
            raise ValueError(
                "must be a URL such as https://api.openai.com/v1: its host or its port (1 to 65535) is wrong"
            ) from None
        if parts.scheme not in ("http", "https") or not host or port == 0:
            raise ValueError("must be a URL such as https://api.openai.com/v1")
        if "@" in parts.netloc:
            raise ValueError(
                "cannot hold a user name or a password: put the key into an environment variable and name that by "
                "api_key_env"
            )
        if parts.fragment or value.endswith("#"):
            raise ValueError("cannot hold a fragment (#…): it is never sent")
        for name, _ in parse_qsl(parts.query, keep_blank_values=True):
            if name.lower().replace("-", "").replace("_", "") in _KEY_PARAMETERS:
                raise ValueError(
                    f"cannot hold the parameter {name[:80]!r}: a key does not belong in a file; put it into an "
                    "environment variable and name that by api_key_env"
                )
        root = value.partition("?")[0].rstrip("/")
        return f"{root}?{parts.query}" if parts.query else root

    @field_validator("headers")
    @classmethod
    def _harmless(cls, value: dict[str, str]) -> dict[str, str]:
        # Values are never repeated: one of them may be a key in the wrong place.
        for name, text in value.items():
            shown, lower = repr(name[:80]), name.lower()
            if lower in _KEYS:
                raise ValueError(
                    f"cannot hold {shown}: a key does not belong in a file; put it in an environment variable and name "
                    "that by api_key_env"
                )
            if lower in _WIRE or lower.startswith("content-"):
                raise ValueError(f"cannot hold {shown}: every call sets it itself")
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"cannot hold {shown}: a header's name has letters, digits and - only")
            if not _HEADER_VALUE.fullmatch(text):
                raise ValueError(f"cannot hold {shown} with such a value: write one line of plain ASCII")
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("name one header twice: upper and lower case are the same")
        return value

    @property
    def url(self) -> str:
        """Root of the API, without a slash at the end and without a query."""
        return self.base_url.partition("?")[0] or KINDS[self.kind].base_url

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """Parameters that every request carries, such as Azure's api-version."""
        return tuple(parse_qsl(urlsplit(self.base_url).query, keep_blank_values=True))

    @property
    def key_variable(self) -> str:
        """Name of the environment variable that holds the key."""
        return self.api_key_env or KINDS[self.kind].key_variable

    @property
    def prices(self) -> str:
        """Whose prices apply, in genai-prices' names."""
        return self.price_provider or KINDS[self.kind].prices

    @property
    def fingerprint(self) -> str:
        """Digest of the account: kind, base URL, key and project (or the account's name, where there is one)."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        who = f"account:{self.account}" if self.account else "key:" + hashlib.sha256(key.encode()).hexdigest()
        if not self.account:
            named = KINDS[self.kind].account_headers
            chosen = sorted((name.lower(), value) for name, value in self.headers.items() if name.lower() in named)
            who += "".join(f"\n{name}:{value}" for name, value in chosen)
        return hashlib.sha256(f"{self.kind}\n{self.url}\n{who}".encode()).hexdigest()[:16]

    def owns(self, account: str) -> bool:
        """Whether batches of this account may be asked for with this key."""
        return account == self.fingerprint or account in self.also_accounts

    def redacted(self) -> dict[str, Any]:
        """Return what may be printed."""
        return {
            **self.model_dump(mode="json", exclude_defaults=True, exclude={"headers"}),
            **({"headers": sorted(self.headers)} if self.headers else {}),
            "url": self.url,
            "account": self.fingerprint,
        }


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
