"""Webhooks that providers send: whose they are, and that nobody else sent them (Standard Webhooks)."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from ..activities.providers import ProviderSettings
from ..contract import ConfigurationError

#: How old or how far ahead a signature may be: the library's five minutes. A message is remembered for twice as long,
#: from the first to the last moment at which its signature counts.
_REMEMBERED = 600.0
#: Messages that are remembered at most. To forget one is harmless: it wakes a batch once more.
_MOST = 10_000
_PREFIX = "whsec_"


class _Data(msgspec.Struct):
    id: str = ""


class Event(msgspec.Struct):
    """A provider's event: its type, and the batch that it is about."""

    type: str = ""
    data: _Data = msgspec.field(default_factory=_Data)


class Inbox:
    """The webhooks of one provider.

    Args:
        secrets: any of them may have signed a message: two, while one takes the place of the other.

    Raises:
        ValueError: one of them is none.
    """

    def __init__(self, secrets: list[str]) -> None:
        if not secrets or not all(secret.startswith(_PREFIX) and len(secret) > len(_PREFIX) for secret in secrets):
            raise ValueError("not a secret")
        try:
            self._webhooks = [Webhook(secret) for secret in secrets]
        except EmptyWebhookSecretError:
            raise ValueError("not a secret") from None
        self._seen: dict[str, float] = {}

    def opened(self, body: bytes, headers: Mapping[str, str]) -> Event | None:
        """Return what a message says; None if it was not signed with one of the secrets in the last five minutes."""
        if not any(_signed(webhook, body, headers) for webhook in self._webhooks):
            return None
        try:
            return msgspec.json.decode(body, type=Event)
        except (msgspec.DecodeError, RecursionError):
            return Event()

    def knows(self, message_id: str) -> bool:
        """Return whether a message was dealt with already."""
        return self._seen.get(message_id, 0) > time.monotonic()

    def remember(self, message_id: str) -> None:
        """Note that a message is dealt with."""
        now = time.monotonic()
        for old, until in list(self._seen.items()):  # in the order in which they came
            if until > now and len(self._seen) < _MOST:
                break
            del self._seen[old]
        self._seen[message_id] = now + _REMEMBERED


def _signed(webhook: Webhook, body: bytes, headers: Mapping[str, str]) -> bool:
    try:
        webhook.verify(body, dict(headers), json_parse=False)
    except Exception:  # the library also raises whatever a malformed header leads to
        return False
    return True


def inboxes(providers: Mapping[str, ProviderSettings]) -> dict[str, Inbox]:
    """Return the inbox of each provider that is configured to send webhooks.

    Raises:
        ConfigurationError: its secret is not in the environment, or is none.
    """
    found = {}
    for name, provider in providers.items():
        if not provider.webhook_secret_env:
            continue
        secret = provider.webhook_secret.get_secret_value() if provider.webhook_secret else ""
        try:
            found[name] = Inbox(secret.split())
        except ValueError:
            raise ConfigurationError(
                f"The environment variable {provider.webhook_secret_env} (providers.{name}.webhook_secret_env) must "
                "hold the secret that the provider showed when the webhook was made, which begins with whsec_."
            ) from None
    return found
