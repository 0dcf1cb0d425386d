"""A provider's own words about a failure, wherever its answer keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durabatch.activities.providers.error_details import Words, silence, words


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "No.", "type": "server_error", "code": "c"}}, Words("server_error", "c", "No.")),
        ({"error": {"message": "No.", "code": 502}}, Words(None, "502", "No.")),
        ({"error": "No."}, Words(None, None, "No.")),
        ({"error": {"error": {"message": "No."}}}, Words(None, None, "No.")),
        ({"error": [{"message": "No."}, {"message": "Never."}]}, Words(None, None, "No.; Never.")),
        ({"errors": ["No.", "Never."]}, Words(None, None, "No.; Never.")),
        ({"errors": {"message": "No."}}, Words(None, None, "No.")),
        ({"error": {"message": {"text": 7, "detail": "No."}}}, Words(None, None, "No.")),
        ({"message": "No.", "type": "t", "code": 400}, Words("t", "400", "No.")),
        ({"error": {"type": "t"}, "message": "No.", "code": "c"}, Words("t", "c", "No.")),
        ({"detail": "No."}, Words(None, None, "No.")),
        ({"detail": {"msg": "No."}}, Words(None, None, "No.")),
        ({"detail": [{"loc": ["body", 0], "msg": "No.", "type": "t"}]}, Words(None, None, "body.0: No.")),
        ({"title": "Bad Request", "status": 400, "detail": "No."}, Words(None, None, "No.")),
        (
            {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "No."}},
            Words("RESOURCE_EXHAUSTED", "429", "No."),
        ),
        ({"type": "error", "error": {"type": "t", "message": "No."}}, Words("t", None, "No.")),
        ({"error": {"message": "No.", "metadata": {"raw": "busy"}}}, Words(None, None, "No. (busy)")),
        ({"error": {"metadata": {"raw": "busy"}}}, Words(None, None, "busy")),
        ({"error": {"details": {"error_code": "c"}}}, Words(None, "c", None)),
        ([{"error": {"message": "No.", "code": "c"}}], Words(None, "c", "No.")),
        ("No.", Words(None, None, "No.")),
        (json.dumps({"error": {"message": "No."}}), Words(None, None, "No.")),
        ("{not JSON", Words(None, None, "{not JSON")),
        ("<html><style>p {}</style><h1>502</h1>\n<p>Bad &amp; slow</p></html>", Words(None, None, "502 Bad & slow")),
        ("x" * 5000, Words(None, None, "x" * 1000 + "…")),
        *[
            (nothing, Words())
            for nothing in (None, "", " ", [], {}, 7, True, {"error": None}, {"error": {}}, {"a": "b"})
        ],
        ({"error": {"message": None, "type": None, "code": None}}, Words()),
        ({"error": {"message": "", "type": 7, "code": True}}, Words()),
    ],
)
def test_the_words_are_found_wherever_they_are(body: Any, expected: Words) -> None:
    assert words(body) == expected


def test_an_answer_that_goes_on_for_ever_is_not_followed() -> None:
    body: Any = "No."
    for _ in range(500):
        body = {"error": body}
    assert words(body) == Words()


def test_silence_is_told_in_a_sentence() -> None:
    assert silence(502) == "HTTP status 502; the provider gave no reason."
    assert silence(None) == "The provider gave no reason."
