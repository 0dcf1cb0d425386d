"""What the name of an object in a batch's folder says; `layout` makes such names and takes them apart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What an object in a batch's folder is."""

    PLAN = "plan"
    RESULT = "result"  #: result.json.
    RESULTS = "results"  #: results.jsonl or errors.jsonl, or a manifest of one.
    TRY = "try"  #: Says that a batch is a try of some rows.
    INLINE = "inline rows"
    BROUGHT = "brought rows"
    FILE_LIST = "list of the input's files"
    COPY = "expanded copy"
    SHARD = "shard"
    INDEX = "index"
    SETTLED = "settled"
    UNMATCHED = "unmatched lines"
    SHARD_RESULTS = "shard's results"
    PICKED = "picked rows"
    ANSWERS = "answers"  #: What the provider sent.
    KEPT = "kept answers"  #: Of a run in direct mode.
    SENT = "sent rows"  #: Which rows a run in direct mode was to send.
    MARK = "mark"  #: How many of them it may have sent.
    RAN = "ran"  #: What became of all runs.
    NOTE = "note"
    WITHDRAWN = "withdrawn note"
    OTHER = "other"  #: Something else below shards/, which is Durabatch's alone.


@dataclass(frozen=True, order=True)
class Run:
    """One execution of the step that runs an attempt's rows in direct mode."""

    number: int  #: From 1, higher than that of every run that was seen when it began.
    token: str  #: Eight random hexadecimal digits: two runs that began at once differ by them.

    def __str__(self) -> str:
        return f"{self.number}-{self.token}"


@dataclass(frozen=True, kw_only=True)
class Name:
    """The name of an object in a batch's folder, taken apart."""

    kind: Kind
    shard: int | None = None
    attempt: int | None = None
    number: int = 0  #: Of a note, from 1; of a file among the files of an input, or of those of a run, from 0.
    run: Run | None = None  #: Of what a run in direct mode wrote.
    stem: str = ""  #: Which of the two: results or errors, output or error; of a brought file, its own name.
    manifest: bool = False  #: Of results: whether it lists the parts that they are in.

    @property
    def own(self) -> str:
        """Of a brought file: its path as its user has it (`brought_name`); "" where it is the only file."""
        return self.stem.replace("~", "/")

    @property
    def bought(self) -> bool:
        """Whether the object may be a trace of a purchase.

        That is all that a batch writes but its plan and the numbers of creates that were refused.
        """
        if self.attempt is not None:
            return self.kind is not Kind.WITHDRAWN
        return self.kind in (Kind.SETTLED, Kind.SHARD_RESULTS, Kind.RESULTS)
