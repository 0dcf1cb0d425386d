"""What is recorded of a step: a closed list of actions, at a level that says whether anybody needs to look."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from durabatch.activities.log import Action, outcome
from durabatch.activities.step import step
from durabatch.contract import AccountMismatch, BatchResult, BatchStatus, Counts, StoreError, Usage, WorkerBusy
from durabatch.contract.ledger import Place
from durabatch.contract.ledger_steps import CENSUS, RELEASE, RESERVE, Census, Reserved
from durabatch.contract.status import ProviderStatus
from durabatch.contract.steps import (
    CANCEL,
    COLLECT,
    CREATE,
    FETCH,
    FIND,
    FINISH,
    POLL,
    RUN_ROWS,
    SETTLE,
    TIDY,
    UPLOAD,
    Attempt,
    Collected,
    CreateAnswer,
    Created,
    Fetched,
    FinishRequest,
    Found,
    Ran,
    Settled,
    Snapshot,
    Step,
    Uploaded,
)

ATTEMPT = Attempt(scoped_id="nightly~1f0a93c2", provider="p", root="file:///s/nightly", shard=3, number=2, store="1f")
RUNNING = Snapshot(id="batch_1", status=ProviderStatus.IN_PROGRESS, raw_status="in_progress", total=9)
ENDED = Snapshot(id="batch_1", status=ProviderStatus.COMPLETED, raw_status="completed", total=9, completed=9)
RESULT = BatchResult(
    batch_id="nightly", status=BatchStatus.COMPLETED, counts=Counts(), usage=Usage(), started_at=datetime.now(UTC)
)


class Asked(BaseModel):
    attempt: Attempt = ATTEMPT


@pytest.mark.parametrize(
    ("of", "answer", "level", "action", "facts"),
    [
        (UPLOAD, Uploaded(file_id="f", rows=9, bytes=70), "INFO", Action.UPLOADED, {"rows": 9, "bytes": 70}),
        (UPLOAD, Uploaded(file_id=None, rows=9, bytes=70), "DEBUG", Action.UPLOADED, {"rows": 9}),
        (FIND, Found(batch=None, noted=0), "DEBUG", Action.LOOKED, {}),
        (FIND, Found(batch=RUNNING, noted=0), "INFO", Action.ADOPTED, {"provider_batch_id": "batch_1"}),
        (CREATE, Created(answer=CreateAnswer.CREATED, batch=RUNNING), "INFO", Action.CREATED, {"rows": 9}),
        (CREATE, Created(answer=CreateAnswer.DEFERRED, code="c"), "INFO", Action.DEFERRED, {"code": "c"}),
        (CREATE, Created(answer=CreateAnswer.REFUSED, code="c"), "WARNING", Action.REFUSED, {"code": "c"}),
        (CREATE, Created(answer=CreateAnswer.LOST, code="c"), "WARNING", Action.LOST, {"code": "c"}),
        (POLL, RUNNING, "DEBUG", Action.POLLED, {"status": "in_progress"}),
        (POLL, ENDED, "INFO", Action.ENDED, {"status": "completed", "finished_rows": 9}),
        (CANCEL, RUNNING, "INFO", Action.CANCELED, {"provider_batch_id": "batch_1"}),
        (FETCH, Fetched(rows=9, bytes=70, gone=("x",)), "INFO", Action.FETCHED, {"rows": 9, "missing": 1}),
        (RUN_ROWS, Ran(rows=9, kept=9), "INFO", Action.RAN, {"rows": 9, "kept": 9}),
        (RUN_ROWS, Ran(rows=9, kept=2, reason="r"), "WARNING", Action.RAN, {"rows": 9, "kept": 2, "error": "r"}),
        (COLLECT, Collected(lines=9, repeated=1), "INFO", Action.COLLECTED, {"lines": 9, "repeated": 1}),
        (SETTLE, Settled(counts=Counts(total=9), retry_rows=4), "INFO", Action.SETTLED, {"rows": 9, "retry_rows": 4}),
        (RESERVE, Reserved(ledger="l", place=Place(granted=True)), "DEBUG", Action.RESERVED, {"granted": True}),
        (RELEASE, None, "DEBUG", Action.RELEASED, {}),
        (TIDY, None, "DEBUG", Action.TIDIED, {}),
        (CENSUS, Census(gone=()), "DEBUG", Action.COUNTED, {}),
    ],
)
def test_an_answer_is_recorded_at_a_level_of_its_own(
    of: Step[Any, Any], answer: Any, level: str, action: Action, facts: dict[str, Any]
) -> None:
    found = outcome(of.name, Asked(), answer)
    assert (logging.getLevelName(found[0]), found[1]) == (level, action)
    assert facts.items() <= found[2].items()


def test_the_end_of_a_batch_is_recorded_with_its_status() -> None:
    level, action, facts = outcome(
        FINISH.name, FinishRequest(root="file:///s/nightly", result=RESULT, store="1f"), None
    )
    assert (level, action, facts["status"]) == (logging.INFO, Action.FINISHED, "completed")


class Steps:
    """Steps that fail."""

    _resources: Any = None

    def __init__(self, error: BaseException) -> None:
        self._error = error

    @step(Step("durabatch.test", Asked, type(None)))
    async def run(self, request: Asked, lease: Any) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "level", "action", "code"),
    [
        (StoreError("The store is away."), "WARNING", "failed", "store_error"),
        (AccountMismatch(), "WARNING", "failed", "account_mismatch"),
        (WorkerBusy(), "DEBUG", "deferred", "worker_busy"),
        (KeyError("a row's text"), "ERROR", "failed", "KeyError"),
        (OSError("a row's text"), "ERROR", "failed", "OSError"),
    ],
)
async def test_a_step_that_fails_is_recorded_with_its_code_and_without_anybodys_text(
    error: BaseException, level: str, action: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "durabatch")
    with pytest.raises(ApplicationError):
        await ActivityEnvironment().run(Steps(error).run, Asked())
    started, failed = (vars(record) for record in caplog.records if record.name == "durabatch")
    assert (started["action"], started["levelname"]) == ("started", "DEBUG")
    assert (failed["action"], failed["levelname"], failed["code"]) == (action, level, code)
    for record in (started, failed):
        assert (record["batch_id"], record["shard"], record["attempt"]) == ("nightly", 3, 2)
        assert record["step"] == "durabatch.test"
        assert "a row's text" not in str(record)
