"""What passes between the gateway, its workflow and its steps."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class FileRecord(BaseModel):
    """What is known of a file: its meta.json."""

    model_config = ConfigDict(frozen=True)

    id: str
    bytes: int
    created_at: int  #: Seconds since 1970, as in OpenAI's answers.
    filename: str
    purpose: str
    expires_at: int | None = None  #: Seconds since 1970; None for never.

    def expired(self, now: datetime) -> bool:
        """Return whether its time is over, and it counts as gone."""
        return self.expires_at is not None and self.expires_at <= now.timestamp()
