"""OpenAI's webhooks: an event at the end of each batch, signed as Standard Webhooks has it.

Source: OpenAI's webhooks guide; the openai package, `lib/_webhooks.py` and `types/webhooks/`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
import time

import aiohttp
import msgspec

from ..batch import Batch
from ..settings import Settings

#: Seconds until an event is sent again that was not taken; the real ones go on for three days.
_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_TIMEOUT = aiohttp.ClientTimeout(total=10)


def event_of(batch: Batch) -> bytes:
    """The event of a batch's end, as it is sent."""
    return msgspec.json.encode(
        {
            "id": f"evt_{secrets.token_hex(16)}",
            "object": "event",
            "created_at": int(batch.ended_at or time.time()),
            "type": f"batch.{batch.status}",
            "data": {"id": batch.id},
        }
    )


def signed(secret: str, message_id: str, at: int, body: bytes) -> dict[str, str]:
    """The headers that a message is sent with."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


async def send(batch: Batch, settings: Settings) -> None:
    """Send the event of a batch that has ended, again until it is taken."""
    url, secret = settings.webhook_url, settings.webhook_secret
    if url is None or secret is None:
        return
    body, message_id = event_of(batch), f"wh_{secrets.token_hex(16)}"
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            headers = signed(secret, message_id, int(time.time()), body)
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                    if answer.status < 300:
                        return
