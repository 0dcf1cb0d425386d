"""What durabatch.toml says of the gateway: `[gateway]`, and its keys, routes and webhooks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from ..activities.webhooks.endpoint import Endpoint
from ..contract import Duration
from ..contract.gateway_layout import DEFAULT_TENANT, is_tenant
from ..contract.gateway_limits import MAX_TURNS, Keep, TenantLimits
from ..contract.webhooks import EVENTS

#: Standard Webhooks: 24 to 64 bytes. Padded, as OpenAI's client reads it.
_SECRET = re.compile(r"whsec_(?=[A-Za-z0-9+/=]{32,88}$)(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WINDOW = re.compile(r"[1-9]\d{0,3}[hd]")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Limits(_Section):
    """What a tenant may use: of a key, or of `[gateway]` for the keys that say nothing."""

    max_rows: Annotated[int | None, Field(ge=1, description="Rows of a batch.")] = None
    max_batches: Annotated[
        int | None, Field(ge=1, le=MAX_TURNS, description="Batches of the tenant under way at a time; the others wait.")
    ] = None
    max_stored_bytes: Annotated[
        int | None,
        Field(ge=1, description="Bytes of the tenant's files and message batches, beyond which no upload is taken."),
    ] = None
    max_cost_usd_per_day: Annotated[
        Decimal | None, Field(gt=0, description="What the tenant's batches may cost a day (UTC); others are refused.")
    ] = None


class GatewayKey(_Limits):
    """`[[gateway.keys]]`: a key, and what its owner may do."""

    tenant: Annotated[str, Field(description="Who it belongs to: small letters, digits, _ and -, 40 at most.")]
    sha256: Annotated[
        str, Field(description="The SHA-256 of the key, in hexadecimal; `durabatch gateway-key TENANT` makes one.")
    ]
    models: Annotated[
        tuple[str, ...], Field(description='Models that it may use, such as "gpt-*"; all if there are none.')
    ] = ()

    max_file_bytes: Annotated[int | None, Field(ge=1, description="The largest file that may be uploaded.")] = None

    @field_validator("tenant")
    @classmethod
    def _named(cls, value: str) -> str:
        if not is_tenant(value):
            raise ValueError("must begin with a small letter or digit, go on with those, _ and -, and have 40 at most")
        return value

    @field_validator("sha256")
    @classmethod
    def _hexadecimal(cls, value: str) -> str:
        if not _SHA256.fullmatch(value.lower()):
            raise ValueError("must be the 64 hexadecimal digits of a SHA-256")
        return value.lower()


class GatewayRoute(_Section):
    """`[[gateway.routes]]`: which provider runs a model. The first route that fits decides."""

    model: Annotated[str, Field(min_length=1, description='A model, or a pattern with * and ?, such as "claude-*".')]
    provider: Annotated[str, Field(min_length=1, description="The name of a provider in this file.")]


class GatewayWebhook(_Section):
    """`[[gateway.webhooks]]`: where a tenant is notified that its batches have ended."""

    # Not even an error repeats the address: it may hold a token.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tenant: Annotated[str, Field(description="The tenant whose batches it is about.")] = DEFAULT_TENANT
    name: Annotated[str, Field(description="What it is called, where a tenant has several; as a tenant's name.")] = (
        "default"
    )
    url: Annotated[str, Field(description="Where events are sent: https, or http too with allow_private.")]
    secret_env: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="The environment variable that holds its secret, whsec_…."
        ),
    ]
    secret: Annotated[SecretStr | None, Field(exclude=True, description="Filled from secret_env, never written.")] = (
        None
    )
    events: Annotated[
        tuple[str, ...], Field(min_length=1, description="Which events are sent; all four by default.")
    ] = EVENTS
    allow_private: Annotated[
        bool, Field(description="Whether it may be on this machine or in a private network, and be plain http.")
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _unwritten(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "secret" in value:
            raise ValueError("secret cannot be given: put it in an environment variable and name that by secret_env")
        return value

    @field_validator("tenant", "name")
    @classmethod
    def _named(cls, value: str) -> str:
        if not is_tenant(value):
            raise ValueError("must begin with a small letter or digit, go on with those, _ and -, and have 40 at most")
        return value

    @field_validator("events")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not set(value) <= set(EVENTS):
            raise ValueError(f"takes these only: {', '.join(EVENTS)}")
        return value

    @model_validator(mode="after")
    def _callable(self) -> Self:
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("url must be a URL such as https://example.com/hooks") from None
        if parts.scheme not in ("http", "https") or not host or any(char <= " " for char in self.url):
            raise ValueError("url must be a URL such as https://example.com/hooks")
        if parts.scheme == "http" and not self.allow_private:
            raise ValueError("url must be https: plain http is for a private network, with allow_private = true")
        if "@" in parts.netloc or parts.fragment:
            raise ValueError("url cannot hold a user name, a password or a fragment")
        return self

    def with_secret(self, environ: Mapping[str, str]) -> Self:
        """Return it with its secret, where the environment has one.

        Raises:
            ValueError: what it has is none.
        """
        secret = environ.get(self.secret_env, "").strip()
        if secret and not _SECRET.fullmatch(secret):
            raise ValueError(
                f"the environment variable {self.secret_env} must hold whsec_ and the base64 of 24 to 64 random bytes"
            )
        return self.model_copy(update={"secret": SecretStr(secret) if secret else None})

    def endpoint(self) -> Endpoint:
        """Return it as the steps know it."""
        return Endpoint(
            tenant=self.tenant,
            name=self.name,
            url=self.url,
            secret=self.secret.get_secret_value() if self.secret else None,
            events=self.events,
            allow_private=self.allow_private,
        )


class GatewaySettings(_Limits):
    """`[gateway]`: what the HTTP door takes, and from whom. Its limits hold for keys that have none of their own."""

    keys: Annotated[tuple[GatewayKey, ...], Field(description="Who may use it; without keys, loopback only.")] = ()
    routes: Annotated[tuple[GatewayRoute, ...], Field(description="Which provider runs which models.")] = ()
    webhooks: Annotated[
        tuple[GatewayWebhook, ...], Field(description="Where tenants are notified that their batches have ended.")
    ] = ()
    max_file_bytes: Annotated[int, Field(ge=1, description="The largest file that may be uploaded.")] = 512 * 1024**2
    max_batches_in_all: Annotated[
        int | None, Field(ge=1, le=MAX_TURNS, description="Batches of all tenants under way at a time.")
    ] = None
    uploads: Annotated[int, Field(ge=1, le=1000, description="Uploads at a time in a process; more get 429.")] = 8
    keep_rows: Annotated[
        Duration | None,
        Field(
            description="How long after its end the rows of a batch are kept beside its files, for a retry of it.",
        ),
    ] = timedelta(days=30)
    keep_batches: Annotated[
        Duration | None,
        Field(description="How long after its end a batch is listed; for ever if absent."),
    ] = None
    completion_windows: Annotated[
        tuple[str, ...], Field(min_length=1, description='Values of completion_window, such as "24h", "1h", "7d".')
    ] = ("24h",)

    public_url: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$",
            description='Where callers reach it, such as "https://batches.example", for the results_url of message '
            "batches; by default, the host that a request names.",
        ),
    ] = None

    @field_validator("keep_rows", "keep_batches")
    @classmethod
    def _not_negative(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < timedelta(0):
            raise ValueError("must not be negative")
        return value

    @field_validator("completion_windows")
    @classmethod
    def _windows(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_WINDOW.fullmatch, value)):
            raise ValueError('must be hours or days, such as "24h", "1h" or "7d"')
        return value

    @field_validator("webhooks")
    @classmethod
    def _distinct(cls, value: tuple[GatewayWebhook, ...]) -> tuple[GatewayWebhook, ...]:
        if len({(one.tenant, one.name) for one in value}) < len(value):
            raise ValueError("must have different names: a tenant has two of the same name")
        return value

    @field_validator("keys")
    @classmethod
    def _different(cls, value: tuple[GatewayKey, ...]) -> tuple[GatewayKey, ...]:
        if len({key.sha256 for key in value}) < len(value):
            raise ValueError("must be different keys: the same sha256 is there twice")
        limits: dict[str, tuple[object, ...]] = {}
        for key in value:
            of_all = (key.max_batches, key.max_stored_bytes, key.max_cost_usd_per_day)
            if limits.setdefault(key.tenant, of_all) != of_all:
                raise ValueError(
                    f"must agree for each tenant on max_batches, max_stored_bytes and max_cost_usd_per_day; those of "
                    f"{key.tenant} differ"
                )
        return value

    @property
    def keep(self) -> Keep:
        """How long batches are kept."""
        return Keep(self.keep_rows, self.keep_batches)

    def limits(self, key: GatewayKey | None) -> TenantLimits:
        """Return the limits of the batches that are created with a key; None where callers need no key."""
        cost = self._of(key, "max_cost_usd_per_day")
        return TenantLimits(
            max_rows=self._of(key, "max_rows"),
            max_batches=self._of(key, "max_batches"),
            max_batches_in_all=self.max_batches_in_all,
            max_cost_usd_per_day=None if cost is None else f"{cost:f}",
        )

    def file_bytes(self, key: GatewayKey | None) -> int:
        """Return the largest file that may be uploaded with a key."""
        return (key.max_file_bytes if key else None) or self.max_file_bytes

    def stored_bytes(self, key: GatewayKey | None) -> int | None:
        """Return what the files of a key's tenant may have together; None for no limit."""
        found: int | None = self._of(key, "max_stored_bytes")
        return found

    def _of(self, key: GatewayKey | None, name: str) -> Any:
        found = getattr(key, name) if key else None
        return getattr(self, name) if found is None else found
