"""What passes between the gateway, its workflow and its steps."""

from __future__ import annotations

import re
from datetime import datetime

from pydantic import BaseModel, ConfigDict

#: A place in a store; the schemes that a store may have.
_IN_STORE = re.compile(r"\b(?:file|s3a?|gs|az|abfss?|azure|adl)://[^\s'\",;)]*[^\s'\",;).]")
#: What an operator is advised to do where a provider refuses the key.
_KEY = re.compile(r"Check the environment variable [^\s,]+, and what the key may do\.")


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


def without_store(words: str) -> str:
    """Return words without the places in the store that they name: those are the operator's, and no tenant's."""
    return _IN_STORE.sub("the store", words)


def without_key(words: str) -> str:
    """Return words without where the operator keeps a provider's key."""
    return _KEY.sub("Ask whoever operates the gateway.", words)
