"""How a process writes its log: as lines for people, or as one JSON object a line for programs.

Both show the facts that our records carry (`activities/log.py`). Of other libraries' records only the message is shown.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from .settings import LogFormat

#: Chatty at INFO: a line for each request, and whatever asyncio finds slow.
_QUIET = ("httpx2", "httpcore2", "asyncio")
#: What every record has; whatever else is there was given as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up_logging(handler: logging.Handler, log_format: LogFormat = LogFormat.TEXT, level: int = logging.INFO) -> None:
    """Send the log of this process to a handler, and nowhere else."""
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """One line a record: time, level, logger, message, and the facts as `name=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without a traceback; the action is its message."""
        shown = "".join(f" {name}={_word(value)}" for name, value in _facts(record).items() if name != "action")
        return super().formatMessage(record) + shown


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, message, and the facts by their names."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record of ours carries beside its message."""
    if record.name.partition(".")[0] != "durabatch":
        return {}
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _word(value: object) -> str:
    """Return a value as one word, so that a line can be cut at its spaces, and no value begins another line."""
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "=') and text else json.dumps(text, ensure_ascii=False)
