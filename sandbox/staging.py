"""Answers every row of a batch into files that wait for the batch's end."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from .batch import Batch, RowName, Status, Tally
from .lines import Lines
from .protocol import Protocol, RowOutcome
from .rows import Answer, Rows, Submissions

_BUFFER = 1 << 20  # bytes

#: What becomes of the rows that a batch's end leaves over; a failed batch with files of its own is silent about them.
_LEFTOVER = {
    Status.COMPLETED: RowOutcome.EXPIRED,
    Status.EXPIRED: RowOutcome.EXPIRED,
    Status.CANCELLED: RowOutcome.CANCELED,
    Status.FAILED: RowOutcome.ERRORED,
}


class Stage(NamedTuple):
    """Where a batch's answers wait."""

    output: Path
    error: Path
    billed: Path


def stage_of(folder: Path, batch_id: str) -> Stage:
    """The stage of a batch below the state folder."""
    stage = folder / "stage"
    return Stage(stage / f"{batch_id}.output", stage / f"{batch_id}.error", stage / f"{batch_id}.billed")


def shuffled(rows: int) -> list[int]:
    """The order in which a batch's rows come out: never the input's (from two rows on), always the same."""
    order = list(range(rows))
    random.Random(rows).shuffle(order)
    if rows > 1 and order == sorted(order):
        order.reverse()
    return order


def stage(
    batch: Batch,
    protocol: Protocol,
    source: Path,
    target: Stage,
    submissions: Submissions,
    keep_on: Callable[[], None],
) -> tuple[Tally, RowName]:
    """Answer the rows of a batch; what was staged before is overwritten. Returns what they cost, and the first's name.

    Args:
        batch: The batch; its `finished_rows` and `end` say how far it gets.
        protocol: The batch's.
        source: Its input, one checked row a line.
        target: Where the answers go.
        submissions: Counts a row's submissions.
        keep_on: Called now and then; raises when the sandbox stops.
    """
    rows = Rows(protocol, batch.endpoint, batch.id, int(batch.created_at), submissions)
    silent = protocol.error_file and batch.end is Status.FAILED
    finished, leftover = batch.finished_rows, _LEFTOVER[batch.end]
    tally = Tally()
    with (
        Lines(source) as lines,
        target.output.open("wb", _BUFFER) as output,
        target.error.open("wb", _BUFFER) as error,
        target.billed.open("wb", _BUFFER) as billed,
    ):
        first = rows.name(lines[0])
        for place, index in enumerate(shuffled(len(lines))):
            if place % 256 == 0:
                keep_on()
            if place < finished:
                answer = rows.answer(lines[index])
            elif silent:
                break
            else:
                answer = rows.leftover(lines[index], leftover)
            _write(answer, output if not protocol.error_file or answer.outcome is RowOutcome.SUCCEEDED else error)
            _count(answer, tally, billed)
        tally.output_bytes, tally.error_bytes = output.tell(), error.tell()
    return tally, first


def _write(answer: Answer, file: BinaryIO) -> None:
    for line in answer.lines:
        file.write(line)
        file.write(b"\n")


def _count(answer: Answer, tally: Tally, billed: BinaryIO) -> None:
    setattr(tally, answer.outcome, getattr(tally, answer.outcome) + 1)
    if answer.reply is not None:
        tally.input_tokens += answer.reply.input_tokens
        tally.output_tokens += answer.reply.output_tokens
        tally.reasoning_tokens += answer.reply.reasoning_tokens
        billed.write(msgspec.json.encode(answer.billed_as or answer.custom_id) + b"\n")
