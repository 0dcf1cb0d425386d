"""Whose a provider batch is, as a name in the store: made here, and taken apart here. Pure.

``~claims/<account>/<provider batch>~<owner>``; `activities/owners.py` says what it is for.
"""

from __future__ import annotations

from .layout import short_digest

#: The folder of all claims. No batch id has a tilde, so it is no batch's folder.
CLAIMS = "~claims"


def claims_folder(account: str) -> str:
    return f"{CLAIMS}/{account}"


def claim_path(account: str, provider_batch_id: str, marker: str) -> str:
    """Return the path of the claim of a provider batch for a marker."""
    return f"{claims_folder(account)}/{provider_batch_id}~{claim_owner(marker)}"


def claim_owner(marker: str) -> str:
    """Return how a claim names the marker that it is for."""
    return short_digest(marker)


def parse_claim(path: str) -> tuple[str, str] | None:
    """Return the provider batch and the owner (`claim_owner`) that a claim's path names; None for any other path."""
    if not path.startswith(f"{CLAIMS}/"):
        return None
    provider_batch_id, _, owner = path.rpartition("/")[2].rpartition("~")
    return provider_batch_id, owner
