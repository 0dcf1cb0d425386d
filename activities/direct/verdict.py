"""What an HTTP answer to one row means: an answer, or something that is tried again, or an end to all rows. Pure."""

from __future__ import annotations

from enum import Enum, auto

from ...contract import ProviderError, QuotaExhausted
from ..providers import ProviderSettings
from ..providers.refusals import refusal
from ..providers.status_errors import CREDIT_WORDS, status_error
from .answer import Answer

#: Bytes of a refusal in which a word about the account or the model is looked for.
_LOOKED_AT = 4096

#: Words by which OpenAI refuses a row that alone needs more than the tokens of a minute: sent again, it would be again.
_TOO_LARGE = (b"request too large", b"tokens must be reduced")


class Verdict(Enum):
    """What becomes of the row."""

    ANSWERED = auto()  #: It is the row's answer, good or bad.
    FAILED = auto()  #: The server has a fault: worth another try.
    REJECTED = auto()  #: There are too many calls: it is sent again, later.
    REFUSED = auto()  #: The row is refused as all rows would be if the key or the route were wrong.
    HOPELESS = auto()  #: No row can be sent until somebody fixes the account.


def verdict(answer: Answer) -> Verdict:
    """Return what an answer means for its row."""
    status = answer.status
    if 200 <= status < 300:
        return Verdict.ANSWERED
    if status == 429 and any(words in answer.body[:_LOOKED_AT].lower() for words in _TOO_LARGE):
        return Verdict.ANSWERED
    if status == 429:
        return Verdict.HOPELESS if _no_credit(answer.body) else Verdict.REJECTED
    if status >= 500 or status in (408, 425):
        return Verdict.FAILED
    if status in (401, 402) or _no_credit(answer.body):
        return Verdict.HOPELESS
    if status in (403, 405) or status < 400:
        return Verdict.REFUSED
    if status == 404 and not _about_the_model(answer.body):
        return Verdict.REFUSED
    return Verdict.ANSWERED


def error_of(settings: ProviderSettings, answer: Answer) -> ProviderError:
    """Return a refusal that concerns all rows as an error of the contract."""
    location = answer.headers.get("location", "") if answer.status < 400 else ""
    location = location.encode(errors="replace").decode()
    moved = f"it has moved to {location.partition('?')[0]}; correct base_url." if location else ""
    error = status_error(settings, answer.status, answer.headers, answer.body, moved=moved)
    if answer.status in (404, 405):
        message = f"{error.message.rstrip('.')}. Does base_url end where the API begins? `durabatch doctor` looks."
        return type(error)(message, status=answer.status)
    if answer.status != 429 or not _no_credit(answer.body):
        return error
    # Of a create it may lift by itself; here every row would use up its tries on it.
    message = f"{error.message.rstrip('.')}. Add credit to the account, or raise its limit."
    return QuotaExhausted(message, status=answer.status)


def _no_credit(body: bytes) -> bool:
    text = body[:_LOOKED_AT].decode(errors="replace").lower()
    return any(words in text for words in CREDIT_WORDS)


def _about_the_model(body: bytes) -> bool:
    """Return whether a 404 is about the row's model, rather than about the route."""
    found = refusal(body[:_LOOKED_AT])
    return "model" in f"{found.code} {found.words}".lower()
