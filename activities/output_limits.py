"""The most output tokens that a request allows, in the fields of all providers. Pure, and fast."""

from __future__ import annotations

import msgspec

from .estimate import bounded

_ABSENT = msgspec.Raw(b"")
#: Digits of a number that are read: one with more is more than anything has.
_DIGITS = 20


class OutputLimits(msgspec.Struct):
    """What of a request's body limits its output; as it was written, as what is no number may be as large as a row."""

    max_completion_tokens: msgspec.Raw = _ABSENT
    max_tokens: msgspec.Raw = _ABSENT
    max_output_tokens: msgspec.Raw = _ABSENT
    n: msgspec.Raw = _ABSENT

    def most(self, otherwise: int | None = None) -> int | None:
        """Return the most tokens that its answers may have, all of them together.

        Args:
            otherwise: those of one answer where no field limits them.
        """
        caps = (self.max_completion_tokens, self.max_tokens, self.max_output_tokens)
        cap = next((count for one in caps if (count := _count(one))), otherwise)
        return None if cap is None else cap * (_count(self.n) or 1)


def _count(value: msgspec.Raw) -> int:
    """Return a number of tokens as JSON has it; 0 for what is none."""
    first = bytes(memoryview(value)[:_DIGITS])
    return bounded(int(first)) if first.isdigit() else 0


def at_most(limit: msgspec.Raw, most: int) -> msgspec.Raw:
    """Return a limit, or the lower one that is given; what is no number stays as it is."""
    return msgspec.Raw(str(most).encode()) if _count(limit) > most else limit


_limits = msgspec.json.Decoder(OutputLimits).decode


def output_limit(body: bytes | msgspec.Raw) -> int | None:
    """Return the most output tokens that a request's body allows; None where it has no limit, or cannot be read."""
    try:
        return _limits(body).most()
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
