"""Rows to measure with, and the check of what comes back. Both stream: a million rows are never in memory at once."""

from __future__ import annotations

import json
import random
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

_TEXT = """
the a of and to in is that for it as was with be by on not he this are or his from at which but have an had
they you were their one all we can her has there been if more when will would who so no said what up its about
into than them could time people my made over did down only way find use may water long little very after
words called just where most know river engine letter market garden window history science number country
question answer
"""
#: Sentences that rows are made of, as they are written in JSON.
_SENTENCES = 1009
#: A row's frame without its text, in bytes; the first line has the row's number.
_FRAME = 190


def make_rows(path: Path, rows: int, row_bytes: int, *, short: bool = False) -> None:
    """Write so many requests of about so many bytes each, always the same ones.

    They are OpenAI's chat lines, which go to the provider as they are, or the short form, which is rewritten.
    """
    before = (
        '","input":"'
        if short
        else '","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4o-mini","messages":[{"role":"user",'
        '"content":"'
    )
    after = '"}\n' if short else '"}]}}\n'
    dice = random.Random(1)
    sentences = [_sentence(dice) for _ in range(_SENTENCES)]
    mean = sum(map(len, sentences)) / len(sentences)
    several = max(1, round((row_bytes - _FRAME) / (mean + 1)))
    twice = sentences + sentences[:several]  # so that no slice runs over the end
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", buffering=1 << 20) as out:
        for number in range(rows):
            start = number * 31 % _SENTENCES
            text = f"Request {number}. {' '.join(twice[start : start + several])}"
            out.write(f'{{"custom_id":"row-{number:08}{before}{text}{after}')


def _sentence(dice: random.Random) -> str:
    """Return a sentence; some hold what JSON escapes and what is not ASCII, as texts do."""
    words = dice.choices(_TEXT.split(), k=dice.randint(6, 18))
    if dice.random() < 0.02:
        words.append("— naïve, “quoted”, 漢字")
    end = dice.choices((".", ".\n", '."'), (90, 8, 2))[0]
    return json.dumps(" ".join(words).capitalize() + end, ensure_ascii=False)[1:-1]


class _Result(msgspec.Struct):
    custom_id: str
    status: str
    text: str | None
    usage: dict[str, int] | None
    cost_usd: str | None
    attempts: int


def wrong_rows(results: Path, rows: int, *, quoted: bool = True) -> list[str]:
    """Read a results file against the rows it must answer, one for each and in order; return what is wrong.

    The sandbox quotes each request's first sentence, so an answer that went to another row shows. live_server.py does
    not quote: its answers are all alike.
    """
    decode = msgspec.json.Decoder(_Result).decode
    wrong: list[str] = []
    with results.open("rb", buffering=1 << 20) as lines:
        for number, line in zip_longest(range(rows), lines):
            if number is None or line is None:
                wrong.append(f"row {number}: there is no {'request' if number is None else 'result'}")
            elif problem := _wrong(number, decode(line), quoted):
                wrong.append(f"row {number}: {problem}")
            if len(wrong) >= 10:
                break
    return wrong


def _wrong(number: int, row: _Result, quoted: bool) -> str | None:
    if row.custom_id != f"row-{number:08}":
        return f"it is {row.custom_id}'s"
    if row.status != "succeeded" or row.attempts != 1:
        return f"{row.status} after {row.attempts} attempts"
    if quoted and not (row.text or "").startswith(f"You said: Request {number}. ["):
        return "the answer is another row's"
    return None if row.usage and row.cost_usd else "it has no usage or no cost"


def wrong_bill(books: dict[str, Any], rows: int) -> list[str]:
    """Read the sandbox's books: every marker was bought once, and every row billed once; return what is wrong."""
    wrong = []
    markers = [batch["marker"] for batch in books["batches"]]
    if len(markers) != len(set(markers)):
        wrong.append(f"{len(markers)} provider batches have {len(set(markers))} markers")
    billed = sum(batch["rows_billed"] for batch in books["batches"])
    if billed != rows:
        wrong.append(f"{billed} rows are billed, of {rows}")
    if "rows" in books:
        often = sum(times != 1 for times in books["rows"].values())
        if often or len(books["rows"]) != rows:
            wrong.append(f"{len(books['rows'])} different rows are billed, {often} of them more than once")
    return wrong
