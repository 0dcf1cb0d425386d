"""How many tokens a request has, guessed from its bytes."""

from __future__ import annotations

#: English prose has about 4 characters a token with the tokenizers of 2024 to 2026; code and other languages have
#: fewer, so 3.5 bytes guesses high rather than low. Measured against providers' own counts the guess is within 30 % for prose;
#: for base64 images and for scripts of 3 bytes a character it is up to 3 times too high. It never decides about a row.
BYTES_PER_TOKEN = 3.5
#: JSON around the text: roles, braces and field names of a request's body.
ENVELOPE_BYTES = 100


def estimate_tokens(body_bytes: int) -> int:
    """Return the estimated input tokens of a request whose line has this many bytes; 1 at least."""
    return max(1, int((body_bytes - ENVELOPE_BYTES) / BYTES_PER_TOKEN))
