"""Lines that are nearly JSON."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from durabatch.activities.repair import MAX_DEPTH, ids, is_open, long_number, repaired


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'\x1e{"a": 1}\x00', {"a": 1}),
        (b'[{"a": 1},', {"a": 1}),
        (b'{"a": "\xff\xc0\x80"}', {"a": "\ufffd\ufffd\ufffd"}),
        (rb'{"a": "cut \ud83d"}', {"a": "cut \ufffd"}),
        (rb'{"a": "\udc00\ud83d\ud83d\ude00"}', {"a": "\ufffd\ufffd😀"}),
        (rb'{"a": "\\ud83d"}', {"a": r"\ud83d"}),
        (b'{"a": [NaN, -Infinity, +inf, nan]}', {"a": [None] * 4}),
        (b'{"NaN": "NaN", "b": "Infinity"}', {"NaN": "NaN", "b": "Infinity"}),
        (b'{"a": "x\x01\ty\n"}', {"a": "x\x01\ty\n"}),
        (b'{\n\t"a":\r 1\x0b}', {"a": 1}),
        (rb'{"a": "\q \u12G4 \x41"}', {"a": r"\q \u12G4 \x41"}),
        (b'{"a": ' + b"7" * 5000 + b"}", {"a": "7" * 5000}),
        (b'{"a": -' + b"7" * 5000 + b"}", {"a": "-" + "7" * 5000}),
        (b'{"a": "' + b"7" * 5000 + b'"}', {"a": "7" * 5000}),
        (b'{"a": 0.' + b"7" * 5000 + b', "b": 1}', {"a": 0.7777777777777778, "b": 1}),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b', "b": 1}', None),
        (b'{"a": ' + b'{"a":' * 5000 + b"NaN" + b"}" * 5000 + b"}", None),
    ],
)
def test_what_json_does_not_allow_is_replaced(line: bytes, value: Any) -> None:
    found = json.loads(repaired(line).decode(), parse_constant=pytest.fail)
    assert value is None or found == value
    assert b"\n" not in repaired(line)


def test_what_is_right_keeps_its_bytes() -> None:
    right = rb' "b": [1.50, 1E5, -0.0, "\u00e9\ud83d\ude00\/\t", {"c":null}],' + ' "é\u2028": "漢"'.encode()
    assert repaired(b'{"a": NaN,' + right + b"}") == b'{"a": null,' + right + b"}"


def test_what_is_too_deep_is_kept_as_text() -> None:
    found = json.loads(repaired(b'{"a": ' + b"[" * 1000 + b"7" + b"]" * 1000 + b', "b": "whole"}'))
    assert found["b"] == "whole"
    depth, inner = 1, found["a"]
    while isinstance(inner, list):
        depth, inner = depth + 1, inner[0]
    assert depth == MAX_DEPTH
    assert inner == "[" * (1000 - MAX_DEPTH + 1) + "7" + "]" * (1000 - MAX_DEPTH + 1)


@pytest.mark.parametrize("line", [b"", b"nonsense", b"}{", b"[1]", b"\xff\xfe"])
def test_where_there_is_no_object_nothing_is_repaired(line: bytes) -> None:
    with pytest.raises(ValueError, match="no object"):
        repaired(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"custom_id": "a", "response": {"bo', ["a"]),
        (rb'{"custom_id":"\u00e9 \"b\"", nonsense', ['é "b"']),
        (b'rest of a text"}}}, "custom_id" : 17}', ["17"]),
        (b'{"custom_id": "a", "x": 1}{"custom_id": "b"', ["a", "b"]),
        (rb'{"custom_id": "a", "text": "\"custom_id\": \"evil\"', ["a"]),
        (b'{"custom_id": "cu', []),
        (b'{"custom_id": null}', []),
        (b"", []),
    ],
)
def test_an_id_can_be_read_where_the_line_cannot(line: bytes, expected: list[str]) -> None:
    assert ids(line) == expected


def test_a_line_that_ends_within_an_object_is_open() -> None:
    assert is_open(b'{"a": "text')
    assert is_open(b'\xef\xbb\xbf{"a": [1,')
    assert is_open(b"{")
    assert not is_open(b'{"a": "}{"}')
    assert not is_open(b'text"}')
    assert not is_open(b"")


def test_no_long_integer_is_overlooked() -> None:
    for before in range(0, 9000, 7):
        assert long_number(b" " * before + b"7" * 4301 + b" " * 10)
    assert not long_number(b"7" * 1500 + b"." + b"7" * 1500)


def test_random_damage_is_never_more_than_a_value_error() -> None:
    chance = random.Random(3)
    line = json.dumps({"custom_id": "a", "b": [1.5, None, "é😀\n", {"c": "NaN"}]}).encode()
    for _ in range(3000):
        damaged = bytearray(line)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
        try:
            text = repaired(bytes(damaged)).decode()
        except ValueError:
            continue
        assert not any(ord(character) < 32 for character in text)
        ids(bytes(damaged))
        is_open(bytes(damaged))
