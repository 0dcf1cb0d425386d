"""A create's body, cut into its requests as it arrives."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

import pytest

from durabatch.activities.gateway.routing import Route, Router
from durabatch.gateway.array import ArrayReader, Malformed
from durabatch.gateway.errors import ApiError
from durabatch.gateway.message_requests import MAX_REQUEST_BYTES, MAX_REQUESTS, Requests

MIB = 1024 * 1024
ODD = ["", 'a"b', "\\", "}{][", '\\"', "é\n", '"requests":[', 'x,"requests', '},{"custom_id":']
NAMES = ["a", "custom_id", "params", 'b"', "}"]


def cut(data: bytes, step: int, most: int = MIB) -> tuple[list[Any], dict[str, Any]]:
    reader = ArrayReader("requests", ("custom_id", "params"), most)
    found = [one for start in range(0, len(data), step) for one in reader.feed(data[start : start + step])]
    return [json.loads(one) for one in found], reader.end()


def value(depth: int = 0) -> Any:
    kind = random.randrange(7 if depth < 4 else 3)
    if kind < 3:
        return random.choice([*ODD, 1, -2.5, True, None, [], {}])
    if kind < 6:
        return {random.choice(NAMES) + str(n) * random.randrange(2): value(depth + 1) for n in range(3)}
    return [value(depth + 1) for _ in range(3)]


def test_the_elements_of_any_array_are_found_however_its_bytes_come() -> None:
    random.seed(7)
    for _ in range(150):
        elements = [{"a": value(), random.choice(NAMES): value()} for _ in range(random.randrange(5))]
        around = {f"x{n}": value(1) for n in range(random.randrange(3))}
        whole = {**around, "requests": elements, **({"z": value(1)} if random.random() < 0.5 else {})}
        data = json.dumps(whole, indent=random.choice([None, 1]), ensure_ascii=random.random() < 0.5).encode()
        for step in (1, 3, 1000):
            assert cut(data, step) == (elements, {**whole, "requests": []})


def test_what_is_changed_at_random_is_read_as_json_reads_it_or_refused() -> None:
    random.seed(11)
    read = 0
    for _ in range(1500):
        data = bytearray(json.dumps({"requests": [{"a": value()} for _ in range(3)]}).encode())
        for _ in range(random.randrange(1, 4)):
            place, byte = random.randrange(len(data)), random.choice(b'{}[]",:\\ a1')
            data[place : place + random.randrange(2)] = bytes([byte])
        try:
            found, around = cut(bytes(data), 5)
        except (Malformed, ValueError):  # the latter of an element, which is parsed where it is used
            continue
        assert {**around, "requests": found} == json.loads(data)
        read += 1
    assert read > 100


def lines(data: bytes, step: int = 50) -> list[bytes]:
    requests = Requests()
    found = b"".join(requests.feed(data[start : start + step]) for start in range(0, len(data), step))
    requests.end()
    return found.splitlines()


def test_each_request_becomes_a_line_as_it_was_written() -> None:
    body = (
        b'{"requests": [{"custom_id":"a","params":{"model":"m",\r\n "big":12345678901234567890,"t":"a\\nb"}}\n ,\n'
        + (b'{\n"params":{"model":"m"},"custom_id":"b"}], "provider": "p"}')
    )
    assert lines(body) == [
        b'{"custom_id":"a","params":{"model":"m",   "big":12345678901234567890,"t":"a\\nb"}}',
        b'{ "params":{"model":"m"},"custom_id":"b"}',
    ]


FINE: dict[str, Any] = {"custom_id": "a", "params": {"model": "m"}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The request body is not valid JSON."),
        (b"[]", "The request body is not a JSON object."),
        (b"{}", "requests: Field required"),
        (b'{"requests": []}', "requests: List should have at least 1 item"),
        (b'{"requests": {}}', "requests: Input should be a valid list"),
        (b'{"x": {"requests": [{}]}}', "requests: Field required"),
        (b'{"requests": [1]}', "requests.0: Input should be an object"),
        (b'{"requests": [[{}]]}', "requests.0: Input should be an object"),
        (json.dumps({"requests": [FINE, "x"]}).encode(), "requests.1: Input should be an object"),
        (json.dumps({"requests": [FINE]}).encode()[:-1], "The request body is not valid JSON."),
        (json.dumps({"requests": [FINE]}).encode()[:-2], "The request body is not valid JSON."),
        (json.dumps({"requests": [FINE]}).encode() + b"]", "The request body is not valid JSON."),
        (json.dumps({"requests": [FINE]}).encode() + b"{}", "The request body is not valid JSON."),
        (b'{"requests": [%b],}' % json.dumps(FINE).encode(), "The request body is not valid JSON."),
        (b'{"requests": [%b,]}' % json.dumps(FINE).encode(), "requests.1: Input should be an object"),
        (b'{"requests": [%b %b]}' % ((json.dumps(FINE).encode(),) * 2), "requests.1: Input should be an object"),
        (b'{"requests": [%b], "requests": []}' % json.dumps(FINE).encode(), "requests: the field is there twice"),
        (json.dumps({"requests": [FINE, FINE]}).encode(), "requests.1.custom_id: the custom_id a is that of an"),
        (b'{"requests": [{"params": {}}]}', "requests.0.custom_id: Field required"),
        (b'{"requests": [{"custom_id": "a"}]}', "requests.0.params: Field required"),
        (b'{"requests": [{"custom_id": 7, "params": {}}]}', "requests.0.custom_id: Input should be a valid string"),
        (b'{"requests": [{"custom_id": "a", "params": []}]}', "requests.0.params: Input should be an object"),
        (b'{"requests": [{"custom_id": "a", "params": null}]}', "requests.0.params: Input should be an object"),
        (b'{"requests": [{"custom_id": "", "params": {}}]}', "requests.0.custom_id: "),
        (b'{"requests": [{"custom_id": "a b", "params": {}}]}', "requests.0.custom_id: String should match pattern"),
        (json.dumps({"requests": [{**FINE, "custom_id": "a" * 65}]}).encode(), "requests.0.custom_id: String should"),
        (json.dumps({"requests": [{**FINE, "custom_id": "a\n"}]}).encode(), "requests.0.custom_id: "),
        (json.dumps({"requests": [{**FINE, "body": {}}]}).encode(), "requests.0: Extra inputs are not permitted"),
        (b'{"requests": [{"custom_id": "a", "params": {"x": }}]}', "requests.0: it is not JSON"),
        (b'{"requests": [{"custom_id": "a", "params": {"x": [}]}}]}', "requests.0: it is not JSON"),
        (b'{"requests": [{"custom_id": "a", "params": {"x": "\xff"}}]}', "requests.0: it is not UTF-8"),
        (b'{"requests": [{"custom_id": "a", "params": {"x": "\\ud800"}}]}', "requests.0: it holds half of a surrogate"),
        (b'{"requests": [{"custom_id": "a", "params": {"m": 1, "m": 2}}]}', "requests.0.params.m: it occurs twice"),
        (b'{"requests": [{"a": ' + b"[" * 300, "The request body is nested more than 250 levels deep."),
        (b'{"requests": [{"custom_id": "a", "params": {"x": %b%b}}]}' % (b"[" * 220, b"]" * 220), "requests.0: it is"),
        (b'{"x": "' + b"x" * 70_000, "The request body holds more than 65,536 bytes beside requests."),
        (b'{"requests": [' + b" " * 70_000, "requests.0: Input should be an object"),
        (json.dumps({"requests": [{**FINE, "params": {"model": "m" * 257}}]}).encode(), "requests.0.params.model: "),
    ],
    ids=range(38),
)  # fmt: skip
@pytest.mark.parametrize("step", [7, 100_000])
def test_a_body_that_is_no_batch_is_refused_with_the_place(body: bytes, words: str, step: int) -> None:
    with pytest.raises(ApiError) as refused:
        lines(body, step)
    assert refused.value.message.startswith(words)
    assert refused.value.status == 400 and len(refused.value.message) < 300


def test_what_is_around_the_requests_is_not_looked_through_beyond_its_limit() -> None:
    # For each array before the one that is sought, all that is before it: a megabyte of them took minutes.
    body = b'{"a":[' + b"[]," * 30_000 + b'[]],"requests":[{"custom_id":"a","params":{}}]}'
    with pytest.raises(Malformed, match="holds more than 65,536 bytes beside requests"):
        next(ArrayReader("requests", ("custom_id",), MIB).feed(body))


def test_a_batch_has_so_many_requests_at_most() -> None:
    requests = Requests()
    rows = (b'{"custom_id":"%d","params":{}}' % number for number in range(MAX_REQUESTS))
    requests.feed(b'{"requests": [' + b",".join(rows))
    with pytest.raises(ApiError, match="List should have at most 100000 items"):
        requests.feed(b',{"custom_id":"one-more","params":{}}')


def test_no_more_than_one_request_is_kept_and_none_that_is_too_large() -> None:
    element = json.dumps({"custom_id": "%d", "params": {"text": "x" * 10_000}}).encode()
    requests = Requests()
    tracemalloc.start()
    try:
        requests.feed(b'{"requests": [')
        for number in range(1000):
            requests.feed((b"," if number else b"") + element.replace(b"%d", b"%d" % number))
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 4 * MIB
        requests.feed(b',{"custom_id": "large", "params": {"text": "')
        with pytest.raises(ApiError, match=f"requests.1000: the request has more than {MAX_REQUEST_BYTES:,} bytes"):
            for _ in range(MAX_REQUEST_BYTES // MIB + 1):
                requests.feed(b"x" * MIB)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 3 * MAX_REQUEST_BYTES
    finally:
        tracemalloc.stop()


def test_all_requests_are_run_by_one_provider() -> None:
    def provider(*models: object, catch_all: str | None = None) -> str:
        rows = [{"custom_id": f"r{n}", "params": {"model": model}} for n, model in enumerate(models)]
        requests = Requests()
        requests.feed(json.dumps({"requests": rows}).encode())
        requests.end()
        routes = [Route("claude-*", "anthropic"), Route("gpt-*", "openai")]
        return requests.provider(Router(routes, catch_all, ("claude-*", "gpt-*")))

    assert provider("claude-a", None, "claude-b") == "anthropic"
    assert provider("claude-a", "gpt-a", catch_all="local") == "local"
    for models, words in (
        (
            ("claude-a", "gpt-a"),
            "requests.1.params.model: gpt-a is run by the provider openai, and claude-a of requests.0",
        ),
        (("claude-a", "x"), "requests.1.params.model: the model x does not exist or you do not have access to it."),
        ((None, 7), "requests.0.params.model: Field required"),
    ):
        with pytest.raises(ApiError) as refused:
            provider(*models)
        assert refused.value.message.startswith(words)
