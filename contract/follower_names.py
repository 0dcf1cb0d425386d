"""Which workflow follows a provider batch, as an object in the store: its path is made here. Pure.

``~followers/<digest of the provider's name and of its batch's id>`` holds the workflow's id; `activities/followers.py`
says what it is for.
"""

from __future__ import annotations

import hashlib

#: The folder of all of them. No batch id has a tilde, so it is no batch's folder.
FOLLOWERS = "~followers"


def follower_path(provider: str, provider_batch_id: str) -> str:
    """Return the path of what says who follows a provider batch.

    Args:
        provider: its name in the configuration.
        provider_batch_id: whatever somebody says that it is; only its digest becomes part of the path.
    """
    named = f"{provider}\n{provider_batch_id}".encode("utf-8", "surrogatepass")
    return f"{FOLLOWERS}/{hashlib.sha256(named).hexdigest()[:32]}"


def is_follower(path: str) -> bool:
    """Return whether a path is that of one."""
    return path.startswith(f"{FOLLOWERS}/")
