"""Bytes to lines, and lines to requests."""

from __future__ import annotations

import itertools
import json
import random
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from durabatch.activities.rows import MAX_DEPTH, MAX_ID_CHARACTERS, Line, Row, RowRefused, lines, parse

BOM = b"\xef\xbb\xbf"
#: Occurs in every row below, and must occur in no reason.
SECRET = "Sesame"
BODY = {"model": "m", "messages": [{"role": "user", "content": SECRET}]}


def cut(source: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(source), size):
        yield source[start : start + size]


def naive(source: bytes, limit: int) -> list[Line]:
    """The lines of a source, the slow and plain way."""
    found, position = [], 0
    for number, whole in enumerate(source.split(b"\n"), 1):
        offset, text = position, whole
        position += len(whole) + 1
        if len(whole) > limit:
            found.append(Line(number, offset, len(whole), b""))
            continue
        if number == 1 and text.startswith(BOM):
            offset, text = offset + 3, text[3:]
        offset += len(text) - len(text.lstrip())
        if text.strip():
            found.append(Line(number, offset, len(text.strip()), text.strip()))
    return found


# --- lines ---


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"", []),
        (b"\n\r\n  \n\t\n", []),
        (BOM, []),
        (BOM + b"\n", []),
        (b"{}", [Line(1, 0, 2, b"{}")]),
        (b"{}\n", [Line(1, 0, 2, b"{}")]),
        (b"{}\r\n[]\r\n", [Line(1, 0, 2, b"{}"), Line(2, 4, 2, b"[]")]),
        (b"{}\n\n\n[]", [Line(1, 0, 2, b"{}"), Line(4, 5, 2, b"[]")]),
        (BOM + b"{}\n[]", [Line(1, 3, 2, b"{}"), Line(2, 6, 2, b"[]")]),
        (b"  {}  \n\t[]\t", [Line(1, 2, 2, b"{}"), Line(2, 8, 2, b"[]")]),
        # Only the very beginning may hold a byte-order mark; elsewhere it is part of the row.
        (b"{}\n" + BOM + b"[]", [Line(1, 0, 2, b"{}"), Line(2, 3, 5, BOM + b"[]")]),
        (b"{\x00}\n\x00", [Line(1, 0, 3, b"{\x00}"), Line(2, 4, 1, b"\x00")]),
        # A lone carriage return is white space within a line.
        (b"{}\r[]\n", [Line(1, 0, 5, b"{}\r[]")]),
    ],
)
def test_lines_are_numbered_and_placed_as_an_editor_shows_them(source: bytes, expected: list[Line]) -> None:
    assert list(lines([source] if source else [], 100)) == expected


@pytest.mark.parametrize("seed", range(6))
def test_lines_are_the_same_wherever_the_stream_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    parts = [b"\n", b"\n", b"\r\n", b"\n\n", b" ", BOM, b"\x00", b'{"a":"b"}', b"{}", b"x" * 13, b"\r", b"\t"]
    source = (BOM if seed % 2 else b"") + b"".join(chance.choices(parts, k=24))
    expected = naive(source, 12)
    for size in range(1, len(source) + 2):
        assert list(lines(cut(source, size), 12)) == expected, size
    for line in expected:
        if line.data:
            assert line.data == source[line.offset : line.offset + line.length]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
def test_a_line_above_the_limit_comes_without_its_bytes_and_the_next_one_is_found(size: int) -> None:
    source = b"1234567\n12345678\n123456789\n\n1"
    assert list(lines(cut(source, size), 8)) == [
        Line(1, 0, 7, b"1234567"),
        Line(2, 8, 8, b"12345678"),
        Line(3, 17, 9, b""),
        Line(5, 28, 1, b"1"),
    ]


def test_a_line_above_the_limit_is_not_kept_in_memory() -> None:
    chunk = b"x" * 65536

    tracemalloc.start()
    try:
        (line,) = lines(itertools.repeat(chunk, 1000), 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert line == Line(1, 0, 65_536_000, b"")
    assert peak < 4 << 20


def test_no_more_than_a_line_is_read_ahead() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b'{"a":1}\n'

    first_two = list(itertools.islice(lines(endless(), 100), 2))

    assert [line.number for line in first_two] == [1, 2]
    assert taken == 2


# --- requests ---


def row(**fields: Any) -> bytes:
    given = {"custom_id": "a-1", "method": "POST", "url": "/v1/chat/completions", "body": BODY, **fields}
    return json.dumps({name: value for name, value in given.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (row(), ("openai", "/v1/chat/completions")),
        (row(method=..., url=...), ("openai", None)),
        (row(url=None), ("openai", None)),
        # A null is as good as absent: a table has a column for each of the fields.
        (row(method=None, url=None, params=None, input=None), ("openai", None)),
        (row(method=None, url=None, body=None, params=BODY, input=None), ("anthropic", None)),
        (row(method=None, url=None, body=None, params=None, input="Hi."), ("short", None)),
        (row(body=..., params=BODY, method=..., url=...), ("anthropic", None)),
        (row(body=..., input="Hi.", method=..., url=...), ("short", None)),
        (row(body=..., input=[{"role": "user"}], method=..., url=...), ("short", None)),
        (row(note="unknown fields are somebody's own business"), ("openai", "/v1/chat/completions")),
    ],
)
def test_each_shape_of_a_request_is_known(data: bytes, expected: tuple[str, str | None]) -> None:
    found = parse(data)
    assert (found.custom_id, found.shape, found.url) == ("a-1", *expected)
    assert found.data is data
    content = json.loads(data)
    assert json.loads(bytes(found.body)) == (content.get("body") or content.get("params") or content.get("input"))


@pytest.mark.parametrize(
    ("data", "model"),
    [
        (row(), b'"m"'),
        (row(body={"messages": []}), None),
        (row(body={"model": None}), b"null"),
        (row(body=..., input="Hi."), None),
        (row(body=..., params={"model": "c"}), b'"c"'),
    ],
)
def test_a_request_tells_the_model_it_names(data: bytes, model: bytes | None) -> None:
    assert parse(data).model == model


@pytest.mark.parametrize(
    "numbers",
    [b"1e999", b"-1e999", b"9" * 400, b"0." + b"1" * 400, b"1E+2", b"1e-999", b"18446744073709551616", b"-0.0"],
)
def test_numbers_of_any_size_stay_as_they_were_written(numbers: bytes) -> None:
    body = b'{"model": "m", "messages": [], "seed": %b}' % numbers
    data = b'{"custom_id": "a", "body": %b}' % body
    assert bytes(parse(data).body) == body


@pytest.mark.parametrize(
    "custom_id",
    [
        *("a", "a b", "ö/ß", "日本語", "😀", 'with "quotes"', "back\\slash", "x" * MAX_ID_CHARACTERS),
        # Spaces and marks that are no letters: the narrow no-break space of a Mac's screenshots, those of Czech and
        # Japanese, joiners, a soft hyphen, a byte-order mark, a line separator, a right-to-left mark.
        *(
            "at 10.00\u202fPM.png",
            "v\xa013.05",
            "全角\u3000空白",
            "👨\u200d👩\u200d👧",
            "می\u200cخواهم",
            "soft\xadhyphen",
        ),
        *("\ufeffbomid", "line\u2028sep", "a\u200bb", "a\u202eb", "\u200f"),
        # What no version of Unicode has given a meaning yet, one may; some Pythons know less of them than others.
        *("\U0001fae8", "\u0378", "\ue000", "\uffff", "\U0010ffff"),
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_id_may_be_any_short_text(custom_id: str, ascii_only: bool) -> None:
    data = json.dumps({"custom_id": custom_id, "input": "Hi."}, ensure_ascii=ascii_only).encode()
    assert parse(data).custom_id == custom_id


def test_only_control_characters_are_refused_in_an_id_and_all_of_them() -> None:
    for number in range(0x3000):
        custom_id = f"a{chr(number)}b"
        data = json.dumps({"custom_id": custom_id, "input": "Hi."}).encode()
        if unicodedata.category(chr(number)) == "Cc":
            assert refused(data).reason == "holds a control character"
        else:
            assert parse(data).custom_id == custom_id


def test_whole_surrogate_pairs_are_taken() -> None:
    assert parse(b'{"custom_id": "a", "input": "\\ud83d\\ude00"}').shape == "short"


def refused(data: bytes) -> RowRefused:
    with pytest.raises(RowRefused) as caught:
        parse(data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "field", "reason"),
    [
        (b"", None, "is not JSON"),
        (b"Sesame", None, "is not JSON"),
        (b'{"custom_id": "a", "input": "Sesame"', None, "is not JSON"),
        (b'{"custom_id": "a", "input": "Sesame"} {}', None, "is not JSON (trailing characters"),
        (b'{"custom_id": "a", "input": "Sesame",}', None, "is not JSON"),
        (b"{'custom_id': 'a', 'input': 'Sesame'}", None, "is not JSON"),
        (b'{"custom_id": "a", "body": {"x": NaN}}', None, "is not JSON"),
        (b'{"custom_id": "a", "body": {"x": 01}}', None, "is not JSON"),
        (b'{"custom_id": "a", "input": "Ses\x00ame"}', None, "is not JSON"),
        (b'\x00{"custom_id": "a", "input": "Sesame"}', None, "is not JSON"),
        (b'{"custom_id": "a", "input": "Ses\tame"}', None, "is not JSON"),
        (b'\xef\xbb\xbf{"custom_id": "a", "input": "Sesame"}', None, "is not JSON"),
        (b'["Sesame"]', None, "is not a JSON object"),
        (b'"Sesame"', None, "is not a JSON object"),
        (b"17", None, "is not a JSON object"),
        (b"null", None, "is not a JSON object"),
        (b'{"custom_id": "a", "input": "Sesame\xff"}', None, "is not UTF-8 (byte 36)"),
        (b'{"custom_id": "\xc3\x28", "input": "Sesame"}', None, "is not UTF-8 (byte 16)"),
        (b'{"custom_id": "a", "input": "\xed\xa0\x80"}', None, "is not UTF-8"),
        (b'{"custom_id": "a", "input": "Sesame \\ud800"}', None, "half of a surrogate pair"),
        (b'{"custom_id": "a", "input": "Sesame \\udc00 and more of it"}', None, "half of a surrogate pair"),
        (b'{"custom_id": "a", "input": "\\ud800\\u0041 Sesame"}', None, "half of a surrogate pair"),
        (b'{"custom_id": "\\ud800", "input": "Sesame"}', None, "half of a surrogate pair"),
        (row(custom_id=...), "custom_id", "is missing"),
        (row(custom_id=None), "custom_id", "must be a string"),
        (row(custom_id=17), "custom_id", "must be a string"),
        (row(custom_id=[SECRET]), "custom_id", "must be a string"),
        (row(custom_id=""), "custom_id", "not empty"),
        (row(custom_id=" \t"), "custom_id", "not empty"),
        (row(custom_id="x" * (MAX_ID_CHARACTERS + 1)), "custom_id", "more than 256 characters"),
        (row(custom_id="a\x00b"), "custom_id", "control character"),
        (row(custom_id="a\nb"), "custom_id", "control character"),
        (row(custom_id="a\x7fb"), "custom_id", "control character"),
        (row(custom_id="a\x85b"), "custom_id", "control character"),
        (row(custom_id="\x9f\u3000"), "custom_id", "control character"),
        (row(body=...), None, "exactly one of body, params or input, and has none of them"),
        (row(input=SECRET), None, "and has body and input"),
        (row(params=BODY), None, "and has body and params"),
        (row(params=BODY, input=SECRET), None, "and has body and params and input"),
        (row(method="GET"), "method", "must be POST"),
        (row(method="post"), "method", "must be POST"),
        (row(body=..., params=None), None, "exactly one of body, params or input, and has none of them"),
        (row(body=None, params=BODY, input=SECRET), None, "and has params and input"),
        (row(method=[SECRET]), "method", "must be POST"),
        (row(url=17), "url", "must be a string"),
        (row(url=[SECRET]), "url", "must be a string"),
    ],
)
def test_what_is_no_request_is_refused_by_field_and_reason(data: bytes, field: str | None, reason: str) -> None:
    error = refused(data)
    assert error.field == field
    assert reason in error.reason
    assert SECRET not in error.reason


def test_a_refused_row_keeps_its_id_so_that_its_result_can_have_it() -> None:
    assert refused(row(method="GET")).custom_id == "a-1"
    assert refused(row(body=...)).custom_id == "a-1"
    assert refused(row(custom_id=...)).custom_id is None
    assert refused(row(custom_id="x" * 300)).custom_id == "x" * 40 + "…"
    assert refused(row(custom_id="a\x00\nb")).custom_id == "a\\x00\\nb"
    assert refused(row(custom_id="é\u2028\x85b")).custom_id == "é\u2028\\x85b"
    assert refused(row(custom_id="a\n" + "y" * 300)).custom_id == "a\\n" + "y" * 38 + "…"


# --- duplicate names ---


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b'{"custom_id": "a", "custom_id": "b", "input": "Sesame"}', "custom_id"),
        (b'{"custom_id": "a", "input": "Sesame", "input": "Sesame"}', "input"),
        (b'{"custom_id": "a", "method": "GET", "method": "POST", "body": {"model": "m", "messages": []}}', "method"),
        (b'{"custom_id": "a", "body": {"model": "m", "messages": []}, "body": {"model": "m", "messages": []}}', "body"),
        (b'{"custom_id":"a","note":"Sesame","note":"Sesame","input":"Sesame"}', "note"),
        (b'{"custom_id": "a", "body": {"model": "m", "model": "n", "messages": []}}', "body.model"),
        (b'{"custom_id": "a", "body": {"messages": [], "model": "m", "messages": []}}', "body.messages"),
        (b'{"custom_id":"a","body":{"model":"m","messages":[1],"messages":[1]}}', "body.messages"),
        (b'{"custom_id": "a", "body": {"model": "m", "prompt": "x", "stop": 1, "stop": 2}}', "body.stop"),
        (b'{"custom_id": "a", "body": {"top_p": 1, "input": ["Sesame"], "top_p": 1}}', "body.top_p"),
        (b'{"custom_id": "a", "params": {"max_tokens": 1, "messages": [], "max_tokens": 2}}', "params.max_tokens"),
        # However the name is written.
        (b'{"custom_id": "a", "custom\\u005fid": "b", "input": "Sesame"}', "custom_id"),
        (b'{"custom_id": "a", "body": {"model": "m", "mod\\u0065l": "n", "messages": []}}', "body.model"),
        # An object that is its own twin, one within and one beside.
        (b'{"custom_id": "a", "body": {"x": {"messages": [7]}, "messages": [7], "x": 1}}', "body.x"),
    ],
)
def test_a_name_that_stands_twice_is_refused_by_name(data: bytes, field: str) -> None:
    error = refused(data)
    assert (error.field, error.reason) == (field, "occurs twice")


def test_a_name_that_is_no_name_is_not_told() -> None:
    twice = b'{"custom_id": "a", "body": {"Open, Sesame": 1, "Open, Sesame": 2, "messages": []}}'
    error = refused(twice)
    assert (error.field, error.reason) == ("body", "has a field twice")
    error = refused(b'{"custom_id": "a", "Open, Sesame": 1, "Open, Sesame": 2, "input": "x"}')
    assert (error.field, error.reason) == (None, "has a field twice")


def test_a_name_may_stand_again_in_another_object() -> None:
    data = (
        b'{"custom_id": "a", "model": "x", "messages": "x", "body": {"model": "m", "custom_id": "b", "messages": '
        b'[{"role": "user", "content": "a"}, {"role": "user", "content": "\\"model\\": \\"messages\\": []"}], '
        b'"metadata": {"model": "x", "messages": "y"}}}'
    )
    assert parse(data).custom_id == "a"


def test_a_clean_row_does_not_vouch_for_one_with_a_name_twice() -> None:
    parse(b'{"custom_id": "a", "body": {"model": "m", "messages": [1]}}')
    parse(b'{"custom_id": "b", "body": {"model": "m", "messages": [2]}}')
    twice = b'{"custom_id": "c", "body": {"model": "m", "messages": [3], "messages": [4]}}'
    assert refused(twice).field == "body.messages"
    assert refused(twice).field == "body.messages"  # nor does a look at the row itself


def pairs(data: bytes) -> Any:
    return json.loads(data, object_pairs_hook=list)


def test_every_name_that_stands_twice_is_found_and_no_other() -> None:
    """Random rows, in every way of writing them, against Python's own parser."""
    chance = random.Random(7)
    names = ["model", "messages", "input", "temperature", "custom_id", "body", 'q"q', "ü", "x y"]
    values = [
        '"m"',
        "1",
        "null",
        "[]",
        '["messages"]',
        '{"model": "x", "model": "y"}',
        '"\\"model\\":"',
        '"a"',
        '{"a":1}',
    ]
    separators = [(",", ":"), (", ", ": "), (" , ", " : "), (",\t", ":\t")]
    wrong = 0
    for number in range(3000):
        comma, colon = chance.choice(separators)

        def written(
            chosen: list[tuple[str, str]], comma: str = comma, colon: str = colon, plain: bool = chance.random() < 0.5
        ) -> str:
            inside = comma.join(f"{json.dumps(name, ensure_ascii=plain)}{colon}{value}" for name, value in chosen)
            return "{" + inside + "}"

        body = [(chance.choice(names), chance.choice(values)) for _ in range(chance.randint(1, 5))]
        outer = [("custom_id", f'"r-{number}"'), ("body", written(body)), ("note", '"x"')]
        chance.shuffle(outer)
        if chance.random() < 0.2:
            outer.append(("note", chance.choice(values)))
        data = written(outer).encode()

        twice = [
            name
            for level in (pairs(data), dict(pairs(data))["body"])
            for name, times in Counter(name for name, _ in level).items()
            if times > 1
        ]
        try:
            parse(data)
        except RowRefused as error:
            assert twice, data
            assert "twice" in error.reason
            wrong += 1
        else:
            assert not twice, data
    assert 500 < wrong < 2500  # both kinds were tried


# --- depth ---


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """A row with so many levels, its own object and its body's included."""
    inside = opening * (levels - 2) + closing * (levels - 2)
    return b'{"custom_id": "a", "body": {"model": "m", "messages": [], "x": %b}}' % inside


def test_a_row_may_be_as_deep_as_the_limit_says() -> None:
    assert parse(nested(MAX_DEPTH)).custom_id == "a"
    assert refused(nested(MAX_DEPTH + 1)).reason == "is nested more than 200 levels deep"


@pytest.mark.parametrize("levels", [150, 100_000])
def test_lists_and_objects_count_alike_and_no_depth_crashes(levels: int) -> None:
    data = b'{"custom_id": "a", "body": {"x": %b1%b}}' % (b'{"a":[' * levels, b"]}" * levels)
    assert refused(data).reason == "is nested more than 200 levels deep"


@pytest.mark.parametrize("opening", [b"[", b"{", b'{"a":', b'[{"a":['])
def test_brackets_that_nobody_closes_are_refused_whatever_their_number(opening: bytes) -> None:
    assert "deep" in refused(opening * 100_000).reason
    assert refused(opening * 50).reason.startswith("is not ")


def test_brackets_within_strings_are_no_depth() -> None:
    text = "[" * 5000 + '\\"{' * 500 + "}" + '"]\\' * 300
    data = json.dumps({"custom_id": "a", "input": text}).encode()
    assert parse(data).custom_id == "a"


def test_many_shallow_brackets_are_no_depth() -> None:
    data = json.dumps({"custom_id": "a", "body": {"model": "m", "input": [[n] for n in range(5000)]}}).encode()
    assert parse(data).custom_id == "a"


def test_half_a_string_full_of_escapes_is_refused_in_no_time_to_speak_of() -> None:
    # Quadratic work would run into the test's time limit.
    assert "is not JSON" in refused(b'{"custom_id": "a", "input": "' + b'\\"[' * 500_000).reason


def test_rows_are_plain_values() -> None:
    assert parse(row()) == parse(row())
    assert isinstance(parse(row()), Row)
