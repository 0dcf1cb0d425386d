"""How many tokens a request has, guessed from its bytes."""

from __future__ import annotations

#: The usual rule of thumb for English prose is 4 characters a token; code has fewer, so 3.5 bytes guesses high rather
#: than low. Base64 images and scripts of 3 bytes a character are guessed up to several times too high. No row's fate
#: hangs on it: it cuts shards and bounds a price, and the provider counts for itself.
BYTES_PER_TOKEN = 3.5
#: JSON around the text: roles, braces and field names of a request's body.
ENVELOPE_BYTES = 100


def estimate_tokens(body_bytes: int) -> int:
    """Return the estimated input tokens of a request whose line has this many bytes; 1 at least."""
    return max(1, int((body_bytes - ENVELOPE_BYTES) / BYTES_PER_TOKEN))
