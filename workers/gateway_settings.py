"""What durabatch.toml says of the gateway: `[gateway]`, `[[gateway.keys]]`, `[[gateway.routes]]`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..contract.gateway_layout import is_tenant

_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GatewayKey(_Section):
    """`[[gateway.keys]]`: a key, and what its owner may do."""

    tenant: Annotated[str, Field(description="Who it belongs to: small letters, digits, _ and -, 40 at most.")]
    sha256: Annotated[
        str, Field(description="The SHA-256 of the key, in hexadecimal; `durabatch gateway-key TENANT` makes one.")
    ]
    models: Annotated[
        tuple[str, ...], Field(description='Models that it may use, such as "gpt-*"; all if there are none.')
    ] = ()

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


class GatewaySettings(_Section):
    """`[gateway]`: what the HTTP door takes, and from whom."""

    keys: Annotated[tuple[GatewayKey, ...], Field(description="Who may use it; without keys, loopback only.")] = ()
    routes: Annotated[tuple[GatewayRoute, ...], Field(description="Which provider runs which models.")] = ()
    max_file_bytes: Annotated[int, Field(ge=1, description="The largest file that may be uploaded.")] = 512 * 1024**2
    uploads: Annotated[int, Field(ge=1, le=1000, description="Uploads at a time in a process; more get 429.")] = 8
    completion_windows: Annotated[
        tuple[str, ...], Field(min_length=1, description='Values of completion_window, such as "24h", "1h", "7d".')
    ] = ("24h",)

    @field_validator("keys")
    @classmethod
    def _different(cls, value: tuple[GatewayKey, ...]) -> tuple[GatewayKey, ...]:
        if len({key.sha256 for key in value}) < len(value):
            raise ValueError("must be different keys: the same sha256 is there twice")
        return value
