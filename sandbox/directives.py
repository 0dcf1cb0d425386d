"""The directives in a row's text, such as `[[sandbox:rate_limited times=1]]`, and the errors they ask for."""

from __future__ import annotations

import re
from typing import NamedTuple

_OPENING = "[[sandbox:"
_DIRECTIVE = re.compile(r"\[\[sandbox:([a-z_]+)(?:=([\w.-]+))?((?: [a-z_]+=\d+(?:\.\d+)?)*)\]\]")

#: Rows that are answered, and whose lines come out wrong.
LINE_FAULTS = frozenset({"missing", "duplicate", "malformed", "unknown"})

#: Rows that fail, and the provider's sentence; status, type and code are the protocol's.
FAILURES = {
    "rate_limited": "Rate limit reached for requests.",
    "server_error": "The server had an error while processing your request.",
    "timeout": "The request timed out.",
    "invalid_request": "The request is not valid.",
    "context_length": "prompt is too long: this model's maximum context length is exceeded.",
    "overloaded": "The model is overloaded.",
}

#: Live calls whose answer does not come, or not whole.
LIVE_FAULTS = frozenset({"hang", "reset", "reset_answer"})

#: Every misbehaviour that a directive may name.
CLASSES = LINE_FAULTS | LIVE_FAULTS | set(FAILURES) | {"empty", "content_filtered", "batch_expired", "skipped"}


class Directives(NamedTuple):
    """What a text's directives ask for."""

    misbehaviour: str | None = None  # one of CLASSES
    times: int | None = None  # only the first so many submissions misbehave; None: all
    delay_seconds: float = 0.0  # of live calls
    output_tokens: int | None = None
    characters: int | None = None  # the length of the text
    billed_as: str | None = None  # the name under which the books count the row, instead of its id

    def without_misbehaviour(self) -> Directives:
        """What is left for a submission that behaves."""
        return self._replace(misbehaviour=None, times=None)


NO_DIRECTIVES = Directives()


def read_directives(text: str) -> Directives:
    """What the directives in a text ask for; unknown ones are plain text."""
    if _OPENING not in text:
        return NO_DIRECTIVES
    directives = NO_DIRECTIVES
    for name, value, options in _DIRECTIVE.findall(text):
        given = dict(option.split("=") for option in options.split())
        if name in CLASSES:
            times = int(float(given["times"])) if "times" in given else None
            directives = directives._replace(misbehaviour=name, times=times)
        elif name == "slow":
            directives = directives._replace(delay_seconds=float(given.get("seconds", "1")))
        elif name == "billed_as" and value:
            directives = directives._replace(billed_as=value)
        elif name == "tokens" and value.isdecimal():
            directives = directives._replace(output_tokens=int(value))
        elif name == "characters" and value.isdecimal():
            directives = directives._replace(characters=int(value))
    return directives


def without_directives(text: str) -> str:
    """The text as a model would read it."""
    return _DIRECTIVE.sub("", text).strip() if _OPENING in text else text
