"""One row of a batch, answered in the words of its protocol."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from .batch import RowName
from .directives import FAILURES, LINE_FAULTS, Directions, read_directives
from .errors import Protocol, Refusal, missing
from .prompt import MESSAGES, read_prompt
from .replies import Reply, reply

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Fate(StrEnum):
    """What became of a row."""

    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    EXPIRED = "expired"
    CANCELED = "canceled"
    SKIPPED = "skipped"  # never looked at, and not counted either


class Answer(NamedTuple):
    """A row's fate, the lines that tell of it (usually one), and what it cost; `reply` is None for free rows."""

    custom_id: str
    fate: Fate
    lines: list[bytes]
    reply: Reply | None = None
    billed_as: str | None = None  # None: under its id


#: Says which submission of a row this is, counted from 1, by what stays the same when it is submitted again.
Submissions = Callable[[str], int]


class Rows:
    """The rows of one batch.

    Args:
        protocol: Whose words to use.
        endpoint: OpenAI's endpoint of the batch.
        batch_id: Makes the ids inside the answers the same whenever a batch is processed again after a crash.
        created: Unix seconds to put into the answers.
        submissions: Counts submissions of rows whose misbehaviour is limited to the first few.
    """

    def __init__(
        self, protocol: Protocol, endpoint: str, batch_id: str, created: int, submissions: Submissions
    ) -> None:
        self._openai = protocol is Protocol.OPENAI
        self._endpoint = endpoint if self._openai else MESSAGES
        self._body = "body" if self._openai else "params"
        self._batch_id = batch_id
        self._created = created
        self._submissions = submissions

    def answer(self, line: bytes) -> Answer:
        """Answer a row as its text asks for."""
        row = _decode(line)
        custom_id: str = row["custom_id"]
        body: dict[str, Any] = row[self._body]
        try:
            if not self._openai and body.get("max_tokens") is None:
                raise missing("max_tokens")
            prompt = read_prompt(self._endpoint, body)
        except Refusal as refusal:
            return self._errored(custom_id, refusal if self._openai else refusal.in_anthropic_words())
        # Where ids are the client's to make up they may be other ones each time; the prompt is not.
        directions = self._directions(custom_id if self._openai else prompt.digest, read_directives(prompt.text))
        wanted = directions.misbehaviour
        if wanted == "batch_expired":
            return self.leftover(line, Fate.EXPIRED)
        if wanted == "skipped":
            return Answer(custom_id, Fate.SKIPPED, [])
        if wanted in FAILURES:
            return self._failed(custom_id, wanted)
        tier = "default" if self._openai else "batch"
        answer = reply(self._endpoint, body, prompt, directions, created=self._created, tier=tier)
        lines = self._lines(custom_id, self._succeeded(custom_id, answer), wanted)
        return Answer(custom_id, Fate.SUCCEEDED, lines, answer, directions.billed_as)

    def name(self, line: bytes) -> RowName:
        """A row's id, and the name under which it is billed."""
        row = _decode(line)
        custom_id: str = row["custom_id"]
        try:
            text = read_prompt(self._endpoint, row[self._body]).text
        except Refusal:
            return RowName(custom_id=custom_id, billed_as=custom_id)
        return RowName(custom_id=custom_id, billed_as=read_directives(text).billed_as or custom_id)

    def leftover(self, line: bytes, fate: Fate) -> Answer:
        """A row that the batch's end overtook."""
        custom_id: str = _decode(line)["custom_id"]
        if fate is Fate.ERRORED:
            return self._errored(custom_id, Refusal(500, "The batch failed before this request was processed."))
        if not self._openai:
            return Answer(custom_id, fate, [_encode({"custom_id": custom_id, "result": {"type": fate}})])
        if fate is Fate.EXPIRED:
            code = "batch_expired"
            message = "This request could not be executed before the completion window expired."
        else:
            code = "batch_cancelled"
            message = "This request was not executed because the batch was cancelled."
        return Answer(custom_id, fate, [self._openai_line(custom_id, None, {"code": code, "message": message})])

    def _directions(self, row: str, directions: Directions) -> Directions:
        if directions.times is not None and self._submissions(row) > directions.times:
            return directions.without_misbehaviour()
        return directions

    def _failed(self, custom_id: str, name: str) -> Answer:
        failure = FAILURES[name]
        if self._openai and name == "timeout":
            error = {"code": "request_timeout", "message": failure.message}
            return Answer(custom_id, Fate.ERRORED, [self._openai_line(custom_id, None, error)])
        protocol = Protocol.OPENAI if self._openai else Protocol.ANTHROPIC
        return self._errored(custom_id, failure.refusal(protocol))

    def _errored(self, custom_id: str, refusal: Refusal) -> Answer:
        if self._openai:
            response = self._openai_response(custom_id, refusal.status, refusal.openai())
            return Answer(custom_id, Fate.ERRORED, [self._openai_line(custom_id, response, None)])
        result = {"type": "errored", "error": refusal.anthropic(self._id("req", custom_id))}
        return Answer(custom_id, Fate.ERRORED, [_encode({"custom_id": custom_id, "result": result})])

    def _succeeded(self, custom_id: str, answer: Reply) -> bytes:
        if not self._openai:
            return _encode({"custom_id": custom_id, "result": {"type": "succeeded", "message": answer.body}})
        return self._openai_line(custom_id, self._openai_response(custom_id, 200, answer.body), None)

    def _openai_response(self, custom_id: str, status: int, body: dict[str, Any]) -> dict[str, Any]:
        return {"status_code": status, "request_id": self._id("req", custom_id), "body": body}

    def _openai_line(self, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
        line_id = self._id("batch_req", custom_id)
        return _encode({"id": line_id, "custom_id": custom_id, "response": response, "error": error})

    def _lines(self, custom_id: str, line: bytes, wanted: str | None) -> list[bytes]:
        if wanted not in LINE_FAULTS:
            return [line]
        if wanted == "missing":
            return []
        if wanted == "duplicate":
            return [line, line]
        if wanted == "malformed":
            return [line[: len(line) // 2]]
        stranger = _decode(line)
        stranger["custom_id"] = self._id("nobody", custom_id)
        return [line, _encode(stranger)]

    def _id(self, prefix: str, custom_id: str) -> str:
        return f"{prefix}_{blake2b(f'{self._batch_id}/{custom_id}'.encode(), digest_size=12).hexdigest()}"
