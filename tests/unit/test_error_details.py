"""A provider's own words about a failure, wherever its answer keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durabatch.activities.providers.error_details import ErrorDetails, error_details, no_reason


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "No.", "type": "server_error", "code": "c"}}, ErrorDetails("server_error", "c", "No.")),
        ({"error": {"message": "No.", "code": 502}}, ErrorDetails(None, "502", "No.")),
        ({"error": "No."}, ErrorDetails(None, None, "No.")),
        ({"error": {"error": {"message": "No."}}}, ErrorDetails(None, None, "No.")),
        ({"error": [{"message": "No."}, {"message": "Never."}]}, ErrorDetails(None, None, "No.; Never.")),
        ({"errors": ["No.", "Never."]}, ErrorDetails(None, None, "No.; Never.")),
        ({"errors": {"message": "No."}}, ErrorDetails(None, None, "No.")),
        ({"error": {"message": {"text": 7, "detail": "No."}}}, ErrorDetails(None, None, "No.")),
        ({"message": "No.", "type": "t", "code": 400}, ErrorDetails("t", "400", "No.")),
        ({"error": {"type": "t"}, "message": "No.", "code": "c"}, ErrorDetails("t", "c", "No.")),
        ({"detail": "No."}, ErrorDetails(None, None, "No.")),
        ({"detail": {"msg": "No."}}, ErrorDetails(None, None, "No.")),
        ({"detail": [{"loc": ["body", 0], "msg": "No.", "type": "t"}]}, ErrorDetails(None, None, "body.0: No.")),
        ({"title": "Bad Request", "status": 400, "detail": "No."}, ErrorDetails(None, None, "No.")),
        (
            {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "No."}},
            ErrorDetails("RESOURCE_EXHAUSTED", "429", "No."),
        ),
        ({"type": "error", "error": {"type": "t", "message": "No."}}, ErrorDetails("t", None, "No.")),
        ({"error": {"message": "No.", "metadata": {"raw": "busy"}}}, ErrorDetails(None, None, "No. (busy)")),
        ({"error": {"metadata": {"raw": "busy"}}}, ErrorDetails(None, None, "busy")),
        ({"error": {"details": {"error_code": "c"}}}, ErrorDetails(None, "c", None)),
        ([{"error": {"message": "No.", "code": "c"}}], ErrorDetails(None, "c", "No.")),
        ("No.", ErrorDetails(None, None, "No.")),
        (json.dumps({"error": {"message": "No."}}), ErrorDetails(None, None, "No.")),
        ("{not JSON", ErrorDetails(None, None, "{not JSON")),
        (
            "<html><style>p {}</style><h1>502</h1>\n<p>Bad &amp; slow</p></html>",
            ErrorDetails(None, None, "502 Bad & slow"),
        ),
        ("x" * 5000, ErrorDetails(None, None, "x" * 1000 + "…")),
        *[
            (nothing, ErrorDetails())
            for nothing in (None, "", " ", [], {}, 7, True, {"error": None}, {"error": {}}, {"a": "b"})
        ],
        ({"error": {"message": None, "type": None, "code": None}}, ErrorDetails()),
        ({"error": {"message": "", "type": 7, "code": True}}, ErrorDetails()),
    ],
)
def test_the_words_are_found_wherever_they_are(body: Any, expected: ErrorDetails) -> None:
    assert error_details(body) == expected


def test_an_answer_that_goes_on_for_ever_is_not_followed() -> None:
    body: Any = "No."
    for _ in range(500):
        body = {"error": body}
    assert error_details(body) == ErrorDetails()


def test_silence_is_told_in_a_sentence() -> None:
    assert no_reason(502) == "HTTP status 502; the provider gave no reason."
    assert no_reason(None) == "The provider gave no reason."
