"""How the log is written: a line a record, whatever is in it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from durabatch.workers.logs import JsonFormatter, TextFormatter
from durabatch.workers.settings import LogFormat


def record(name: str = "durabatch", message: str = "created", **facts: Any) -> logging.LogRecord:
    found = logging.makeLogRecord({"name": name, "msg": message, "levelname": "INFO", "created": 0.25, "msecs": 250})
    vars(found).update(facts)
    return found


def test_a_line_for_people_ends_with_the_facts() -> None:
    line = TextFormatter().format(record(action="created", batch_id="nightly", shard=0, attempt=1, rows=565))
    assert line.endswith(" INFO durabatch: created batch_id=nightly shard=0 attempt=1 rows=565")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("two words", '"two words"'),
        ("two\nlines", '"two\\nlines"'),
        ('a "quote"', '"a \\"quote\\""'),
        ("a=b", '"a=b"'),
        ("", '""'),
        ("größe", "größe"),
        (True, "True"),
    ],
)
def test_a_value_is_one_word_and_begins_no_other_line(value: object, shown: str) -> None:
    assert TextFormatter().format(record(error=value)).endswith(f" created error={shown}")


def test_a_line_for_programs_is_one_object() -> None:
    line = JsonFormatter().format(record(action="created", batch_id="nightly", error="two\nlines", odd={1}))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250+00:00",
        "level": "INFO",
        "logger": "durabatch",
        "message": "created",
        "action": "created",
        "batch_id": "nightly",
        "error": "two\nlines",
        "odd": "{1}",
    }
    assert "\n" not in line


def test_of_other_libraries_only_the_message_is_shown() -> None:
    theirs = record("temporalio.activity", "It failed", temporal_activity={"input": "x"})
    assert TextFormatter().format(theirs).endswith("temporalio.activity: It failed")
    assert "temporal_activity" not in json.loads(JsonFormatter().format(theirs))


def test_a_traceback_stays_in_its_object() -> None:
    try:
        raise ValueError("a bug")
    except ValueError:
        found = record()
        found.exc_info = sys.exc_info()
    line = JsonFormatter().format(found)
    assert "\n" not in line and "ValueError: a bug" in json.loads(line)["exception"]


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_a_process_logs_as_its_configuration_says_and_leaves_out_what_is_chatty(log_format: LogFormat) -> None:
    code = (
        "import logging, sys\n"
        "from durabatch.workers.logs import set_up_logging\n"
        "from durabatch.workers.settings import LogFormat\n"
        f"set_up_logging(logging.StreamHandler(sys.stdout), LogFormat({log_format.value!r}))\n"
        "logging.getLogger('durabatch').info('created', extra={'action': 'created', 'rows': 7})\n"
        "logging.getLogger('durabatch').debug('polled')\n"
        "logging.getLogger('httpx2').info('GET /')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    if log_format is LogFormat.JSON:
        assert json.loads(line)["rows"] == 7
    else:
        assert line.endswith("INFO durabatch: created rows=7")
