"""One row of a batch, answered in its protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from .batch import RowName
from .directives import FAILURES, LINE_FAULTS, Directives, read_directives
from .errors import Refusal
from .protocol import Protocol, RowOutcome, RowRef
from .replies import Call, Reply

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """What became of a row, the lines that say so (usually one), and what it cost; `reply` is None for free rows."""

    custom_id: str
    outcome: RowOutcome
    lines: list[bytes]
    reply: Reply | None = None
    billed_as: str | None = None  # None: under its id


#: Says which submission of a row this is, counted from 1, by what stays the same when it is submitted again.
Submissions = Callable[[str], int]


class Rows:
    """The rows of one batch.

    Args:
        protocol: The batch's.
        endpoint: The endpoint of all its rows.
        batch_id: Makes the ids inside the answers the same whenever a batch is processed again after a crash.
        created: Unix seconds to put into the answers.
        submissions: Counts submissions of rows whose misbehaviour is limited to the first few.
    """

    def __init__(
        self, protocol: Protocol, endpoint: str, batch_id: str, created: int, submissions: Submissions
    ) -> None:
        self._protocol = protocol
        self._endpoint = protocol.endpoints[endpoint]
        self._batch_id = batch_id
        self._created = created
        self._submissions = submissions

    def answer(self, line: bytes) -> Answer:
        """Answer a row as its text asks for."""
        protocol, row = self._protocol, _decode(line)
        custom_id: str = row["custom_id"]
        body: dict[str, Any] = row[protocol.request_field]
        ref = RowRef(self._batch_id, custom_id)
        try:
            prompt = self._endpoint.read(body)
            self._endpoint.check(body)
            protocol.check_row(body)
        except Refusal as refusal:
            return Answer(custom_id, RowOutcome.ERRORED, [_encode(protocol.errored(ref, protocol.reworded(refusal)))])
        # Where ids are the client's to make up they may be other ones each time; the prompt is not.
        same = custom_id if protocol.keeps_ids else prompt.digest
        directives = self._directives(same, read_directives(prompt.text))
        wanted = directives.misbehaviour
        if wanted == "batch_expired":
            return self.leftover(line, RowOutcome.EXPIRED)
        if wanted == "skipped":
            return Answer(custom_id, RowOutcome.SKIPPED, [])
        if wanted in FAILURES:
            return Answer(custom_id, RowOutcome.ERRORED, [_encode(protocol.failed(ref, wanted))])
        reply = self._endpoint.reply(Call(body, prompt, directives, self._created, protocol.batch_tier))
        lines = self._lines(ref, _encode(protocol.succeeded(ref, reply.body)), wanted)
        return Answer(custom_id, RowOutcome.SUCCEEDED, lines, reply, directives.billed_as)

    def name(self, line: bytes) -> RowName:
        """A row's id, and the name under which it is billed."""
        row = _decode(line)
        custom_id: str = row["custom_id"]
        try:
            text = self._endpoint.read(row[self._protocol.request_field]).text
        except Refusal:
            return RowName(custom_id=custom_id, billed_as=custom_id)
        return RowName(custom_id=custom_id, billed_as=read_directives(text).billed_as or custom_id)

    def leftover(self, line: bytes, outcome: RowOutcome) -> Answer:
        """A row that the batch's end overtook."""
        custom_id: str = _decode(line)["custom_id"]
        ref = RowRef(self._batch_id, custom_id)
        if outcome is RowOutcome.ERRORED:
            refusal = Refusal(500, "The batch failed before this request was processed.")
            return Answer(custom_id, outcome, [_encode(self._protocol.errored(ref, refusal))])
        return Answer(custom_id, outcome, [_encode(self._protocol.overtaken(ref, outcome))])

    def _directives(self, row: str, directives: Directives) -> Directives:
        if directives.times is not None and self._submissions(row) > directives.times:
            return directives.without_misbehaviour()
        return directives

    def _lines(self, ref: RowRef, line: bytes, wanted: str | None) -> list[bytes]:
        if wanted not in LINE_FAULTS:
            return [line]
        if wanted == "missing":
            return []
        if wanted == "duplicate":
            return [line, line]
        if wanted == "malformed":
            return [line[: len(line) // 2]]
        stranger = _decode(line)
        stranger["custom_id"] = ref.id("nobody")
        return [line, _encode(stranger)]
