"""How many tokens a request has, guessed from its bytes.

No tokenizer runs here: providers' tokenizers differ, some are not public, and one of them would cost more than all else
that the plan does with a row. These figures are not measured either. They are this function beside rules of thumb that
providers publish or users report:

| text | a token is about | the estimate is |
|---|---|---|
| English prose | 4 characters (OpenAI's rule) | 15 % high |
| other European languages, in UTF-8 | 2.5 to 3.5 bytes | right, to 30 % low |
| source code, JSON | 2.5 to 3.5 characters | right, to 30 % low |
| Chinese, Japanese, Korean, in UTF-8 | 0.75 to 1.5 characters of 3 bytes | 35 % low to 30 % high |
| the same, written as backslash-u escapes of 6 bytes | | 1.3 to 2.6 times too high |
| base64 as text | 1.3 to 2.5 characters | 30 to 65 % low |
| pictures as base64 | not billed by bytes: some 1,000 for 1 MB | hundreds of times too high |

One bound is firm: a token of a byte-level tokenizer is one byte at least, so but for the few that a provider adds to
each message there are never more than 3.5 times as many as estimated. An estimate cuts shards, bounds a price and paces
calls, and the provider counts for itself. A row's fate hangs on it only where the row is far beyond a limit (see
`shard_limits`).
"""

from __future__ import annotations

import re

#: The endpoints that write nothing, or nothing that is paid for.
NO_OUTPUT = frozenset({"/v1/embeddings", "/v1/moderations"})
#: Between prose (4) and code (3), so that most batches are guessed a little high rather than low.
BYTES_PER_TOKEN = 3.5
#: JSON around the text: roles, braces and field names of a request's body.
ENVELOPE_BYTES = 100
#: Where these are in a row, most of its bytes are a picture, a sound or a file, and say nothing of its tokens.
_MEDIA = (b";base64,", b'"base64"', b'"input_audio"', b'"file_data"')
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=-]{1000,}")
#: Tokens of one of these, as rates are kept by: of a picture, about.
_MEDIA_TOKENS = 1000
#: More tokens than any call has, or any request asks for.
_MOST = 10**9


def bounded(tokens: int) -> int:
    """Return a number of tokens that a row or an answer names as one that can be calculated with.

    JSON may have numbers of thousands of digits, which no float holds, and Python writes out none of; and a negative
    number would add to a rate instead of using it.
    """
    return min(max(tokens, 0), _MOST)


def estimate_tokens(body_bytes: int) -> int:
    """Return the estimated input tokens of a request whose line has this many bytes; 1 at least."""
    return max(1, int((body_bytes - ENVELOPE_BYTES) / BYTES_PER_TOKEN))


def has_media(prepared: bytes) -> bool:
    """Return whether a request as it is sent holds a picture, a sound or a file."""
    return any(mark in prepared for mark in _MEDIA)


def estimate_input(prepared: bytes) -> int:
    """Return the estimated input tokens of a request as it is sent, by which a rate is kept."""
    if not has_media(prepared):
        return estimate_tokens(len(prepared))
    media = [match.end() - match.start() for match in _BASE64.finditer(prepared)]
    return estimate_tokens(len(prepared) - sum(media)) + _MEDIA_TOKENS * len(media)


def sure_input(prepared: bytes) -> int:
    """Return the input tokens that a request surely has, so that it can be refused for them.

    Estimates are up to a quarter high for text, and mean nothing for pictures.
    """
    return 0 if has_media(prepared) else estimate_tokens(len(prepared)) * 3 // 4
