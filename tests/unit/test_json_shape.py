"""What JSON would become in memory, seen without reading it; and that hostile rows and answers take little of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from durabatch.activities.json_shape import (
    MAX_VALUES,
    elements,
    has_many_values,
    has_more_elements,
    has_more_fields,
    is_deeper,
    names,
)
from durabatch.activities.output_limits import output_limit
from durabatch.activities.providers.lenient_struct import LONG
from durabatch.activities.providers.openai.results import outcome
from durabatch.activities.rows import MAX_FIELDS, RowRefused, parse

#: Longer than the pieces that are looked at at a time, with everything that could be taken for the end of a string.
_TEXT = '",:[{' + "\\" * 70_001 + '"]}' + "ä" * 70_000
_QUOTED = json.dumps(_TEXT).encode()


def test_what_is_in_strings_is_not_counted() -> None:
    data = b'{"a":[%b,{"b":%b}],"c":[1,[2,3],{}]}' % (_QUOTED, _QUOTED)
    assert list(names(data)) == ["a", "c"]
    assert not has_more_fields(data, 2)
    assert has_more_fields(data, 1)
    assert elements(b"[%b,[1,2],{},3]" % _QUOTED) == 4
    assert has_more_elements(b"[%b,[1,2],{},3]" % _QUOTED, 3)
    assert not has_more_elements(b"[%b,[1,2],{},3]" % _QUOTED, 4)
    assert not is_deeper(data, 3)
    assert is_deeper(data, 2)


def test_many_values_are_seen_whatever_they_are() -> None:
    for one in (b"1", b"[]", b'"ab"', b'{"a":1}', b"[" * 50 + b"]" * 50):
        assert has_many_values(b"[%b]" % b",".join([one] * (MAX_VALUES + 1)))
    assert not has_many_values(b"[%b]" % b",".join([_QUOTED] * 20))
    assert not has_many_values(json.dumps("1," * MAX_VALUES).encode())


def test_a_row_with_too_many_fields_is_refused_by_name() -> None:
    many = b",".join(b'"f%d":1' % number for number in range(MAX_FIELDS + 1))
    for row, field in ((b'{"custom_id":"a","body":{},%b}', None), (b'{"custom_id":"a","body":{%b}}', "body")):
        with pytest.raises(RowRefused, match="more than 10,000 fields") as refused:
            parse(row % many)
        assert (refused.value.field, refused.value.custom_id) == (field, "a")


def test_fields_of_a_wrong_type_are_refused_whatever_else_is_wrong() -> None:
    huge = b"[%b]" % b",".join([b"[]"] * MAX_VALUES)
    for name in ("custom_id", "method", "url"):
        row = {"custom_id": b'"a"', "method": b'"POST"', "url": b'"/v1/embeddings"', "body": b"{}", name: huge}
        with pytest.raises(RowRefused) as refused:
            parse(b"{%b}" % b",".join(b'"%b":%b' % (key.encode(), value) for key, value in row.items()))
        assert refused.value.field == name


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7, "max_tokens": 5}, 7),
        ({"max_completion_tokens": None, "max_output_tokens": 9, "n": 3}, 27),
        ({"max_tokens": 0}, None),
        ({"max_tokens": "5"}, None),
        ({"max_tokens": -5, "n": 2}, None),
        ({"max_tokens": 10**30}, 10**9),
        ({"n": 4}, None),
        ([1], None),
    ],
)
def test_the_most_output_of_a_request_is_the_first_limit_that_is_a_number(body: Any, most: int | None) -> None:
    assert output_limit(json.dumps(body).encode()) == most


def test_a_long_answer_says_the_same_as_a_short_one() -> None:
    """Long ones are read field by field, which must make no difference."""
    body = {
        "model": "m",
        "choices": [{"message": {"content": "said"}, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 1}},
    }

    def read(padding: int) -> Any:
        response = {"status_code": 200, "request_id": "r", "body": {**body, "padding": "x" * padding}}
        found = outcome(json.dumps({"custom_id": "a", "response": response}).encode())
        return msgspec.structs.replace(found, response=None), found.response and found.response.status_code

    assert read(LONG) == read(0)


#: Calls each place that looks at rows or answers with what would be some fifty times as large as objects, and prints by
#: how many times its length memory has grown at most.
_CHILD = """
import gc, json, sys
from pathlib import Path
import msgspec
from durabatch.activities.gateway.checks import LineRefused, check_line
from durabatch.activities.gateway.message import message
from durabatch.activities.gateway.tokens import Tokens
from durabatch.activities.providers.anthropic import results as anthropic_results, rows as anthropic_rows
from durabatch.activities.providers.openai import results, rows
from durabatch.activities.providers.refusals import refusal
from durabatch.activities.rows import RowRefused, parse
from durabatch.contract import BatchSpec
from durabatch.gateway.errors import ApiError
from durabatch.gateway.message_requests import Requests

CHAT = "/v1/chat/completions"
SPEC = BatchSpec(provider="p", input="i", model="m", params={"top_p": 1})
BOMB = b"[" + b'{"a":1},' * (1 << 17) + b"1]"
CALL = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions",'

def create(line):
    requests = Requests()
    requests.feed(b'{"requests":[')
    requests.feed(line)

WHERE = {
    "a row's url": (parse, b'{"custom_id":"a","body":{},"url":%b}'),
    "a name twice": (parse, b'{"custom_id":"a","body":{"x":%b,"x":1}}'),
    "many fields": (parse, b'{"custom_id":"a","body":{"x":%b}}'.replace(b"%b", b"1,%b")),
    "a line of the gateway's": (lambda line: check_line(line, CHAT), CALL + b'"body":{"model":%b,"messages":[]}}'),
    "a create's model": (create, b'{"custom_id":"a","params":{"model":%b}}'),
    "a chat for Anthropic": (lambda line: anthropic_rows.prepare(parse(line), SPEC), CALL + b'"body":{"messages":%b}}'),
    "its tools": (lambda line: anthropic_rows.prepare(parse(line), SPEC), CALL + b'"body":{"tools":%b}}'),
    "a chat of Anthropic's": (lambda line: rows.prepare(parse(line), SPEC), b'{"custom_id":"a","params":{"x":%b}}'),
    "an error": (results.outcome, b'{"custom_id":"a","error":%b}'),
    "an answer": (results.outcome, b'{"custom_id":"a","response":{"status_code":200,"body":{"choices":%b}}}'),
    "a failure": (results.outcome, b'{"custom_id":"a","response":{"status_code":500,"body":%b}}'),
    "a message": (anthropic_results.outcome, b'{"custom_id":"a","result":{"message":{"content":%b}}}'),
    "a translated answer": (lambda line: message(msgspec.Raw(line), "r"), b'{"choices":[{"message":%b}]}'),
    "a refusal": (refusal, b'{"error":%b}'),
}

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

grown = {}
for where, (look, line) in WHERE.items():
    bomb = b'"b":1' + b"".join(b',"%x":1' % n for n in range(1 << 17)) if where == "many fields" else BOMB
    data = line.replace(b"1,%b", b"1,%b" % bomb) if where == "many fields" else line.replace(b"%b", bomb)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    before = memory("VmRSS")
    try:
        look(data)
    except (RowRefused, LineRefused, ApiError, ValueError):
        pass
    grown[where] = (memory("VmHWM") - before) / len(data)
print(json.dumps(grown))
"""


@pytest.mark.slow
def test_rows_and_answers_of_very_many_values_take_a_few_times_their_length() -> None:
    child = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    grown = json.loads(child.stdout)
    # As objects they are 12 to 34 times as long.
    assert {where: round(times) for where, times in grown.items() if times > 8} == {}
