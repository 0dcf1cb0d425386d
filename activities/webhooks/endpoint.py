"""A tenant's webhook, as the configuration describes it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a tenant's events go. Only its name is ever written down: its address may hold a token."""

    tenant: str
    name: str
    url: str = field(repr=False)
    secret: str | None = field(repr=False)  #: As whsec_…; None where the environment does not have it.
    events: tuple[str, ...]
    allow_private: bool = False  #: Whether it may be in a private network, or on this machine.
