"""What is carried from run to run, and what passes from a shard to its batch: small, whatever it holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from durabatch.contract import BatchResult, BatchStatus, Counts, ProviderBatch, ProviderStatus
from durabatch.contract.names import marker
from durabatch.contract.steps import PlanSummary, ProviderFacts, Search, Settled
from durabatch.workflows.attempt_state import Stage
from durabatch.workflows.signals import read_carried
from durabatch.workflows.state import MAX_LISTED, Carried, ShardOutcome, SteeringState, Untidy

#: What 0.1.0 carries at the least, in every model of it. This text is frozen: a field that a later version adds has a
#: default, or a batch that is under way during an upgrade is stuck.
FROZEN = """
{"started_at": "2026-01-31T12:00:00Z",
 "steering": {"deadline_at": "2026-02-01T14:00:00Z", "cancel": {}},
 "shard": {
   "attempt": {
     "slot": {},
     "direct": {"collected": {"lines": 1}},
     "batch": {"id": "batch_1", "status": "in_progress", "raw_status": "in_progress"},
     "unknown": {"since": "2026-01-31T12:00:00Z", "until": "2026-01-31T12:00:10Z"}},
   "end": {
     "fate": "ran",
     "record": {"number": 1},
     "batch": {"marker": "b~1f0a93c2/0/1", "id": "batch_1", "status": "completed", "rows": 1}},
   "records": [{"number": 1}]},
 "outcome": {"settled": {}, "untidy": [{"shard": 0, "number": 1}]},
 "plan": {
   "root": "file:///store/b", "rows": 1, "invalid_rows": 0, "shards": 1, "planned_at": "2026-01-31T12:00:00Z",
   "store": "1f0a93c2",
   "provider": {
     "name": "openai", "kind": "openai", "account": "a", "search": "marker", "uploads": true, "listing_lag": "PT1M",
     "heartbeat": "PT20S", "max_parallel_shards": 8}},
 "result": {"batch_id": "b", "status": "completed"},
 "untidy": [{"shard": 0, "number": 1}]}
"""

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = "b" * 200


def batches(count: int) -> tuple[ProviderBatch, ...]:
    return tuple(
        ProviderBatch(marker=marker(ID, 9999, n), id="batch_" + "0" * 60, status=ProviderStatus.COMPLETED, rows=50_000)
        for n in range(count)
    )


def outcome(listed: int, **facts: object) -> ShardOutcome:
    untidy = tuple(Untidy(shard=9999, number=n) for n in range(listed))
    counts = Counts(total=2, succeeded=1, failed=1)
    return ShardOutcome.model_validate(
        {"settled": Settled(counts=counts), "batches": batches(listed), "untidy": untidy, **facts}
    )


def test_what_became_of_many_shards_is_summed_and_bounded() -> None:
    total = ShardOutcome(settled=Settled())
    for number in range(200):
        total = total.and_one_more(outcome(3, error="No." if number == 7 else None, blocked=number == 9))
    assert total.settled.counts == Counts(total=400, succeeded=200, failed=200)
    assert (len(total.batches), len(total.untidy)) == (MAX_LISTED, MAX_LISTED)
    assert (total.error, total.blocked) == ("No.", True)


def test_what_the_first_release_carries_is_read_for_ever() -> None:
    carried = Carried.model_validate_json(FROZEN)
    assert (carried.shard.shard, carried.shard.tries, carried.ended) == (0, 1, 0)
    attempt = carried.shard.attempt
    assert (attempt.number, attempt.stage, attempt.doubt, attempt.cleared) == (1, Stage.NEW, False, 0)
    assert carried.shard.end is not None and carried.shard.end.record.sent
    assert carried.plan is not None and not carried.plan.bought


def test_what_is_carried_fits_into_a_payload_in_every_phase() -> None:
    facts = ProviderFacts(
        name="p" * 100,
        kind="openai",
        account="a" * 64,
        search=Search.MARKER,
        uploads=True,
        listing_lag=timedelta(minutes=1),
        heartbeat=timedelta(seconds=20),
        max_parallel_shards=200,
    )
    plan = PlanSummary(
        root=f"s3://{'b' * 63}/{'p' * 500}",
        rows=10**9,
        invalid_rows=0,
        shards=10_000,
        planned_at=NOW,
        provider=facts,
        store="0" * 32,
    )
    steering = {"deadline_at": NOW, "last_error": "x" * 500}
    common = {"started_at": NOW, "steering": steering, "plan": plan}
    applying = Carried.model_validate({**common, "outcome": outcome(MAX_LISTED, error="x" * 500)})
    result = BatchResult(
        batch_id=ID,
        status=BatchStatus.FAILED,
        counts=Counts(),
        provider_batches=batches(MAX_LISTED),
        error="x" * 1000,
        metadata={f"{n:064}": "x" * 512 for n in range(16)},
    )
    cause = {
        "code": "invalid_input",
        "problems": ["x" * 96] * 133,  # as many bytes as `step.failure` lets through
        "total": 10**9,
        "submitted": True,
    }
    untidy = outcome(MAX_LISTED).untidy
    finishing = Carried.model_validate({**common, "result": result, "cause": cause, "untidy": untidy})
    for carried in (applying, finishing):
        text = carried.model_dump_json()
        assert len(text) < 64 * 1024
        assert Carried.model_validate_json(text) == carried


def test_what_nobody_carried_over_is_refused_in_a_sentence() -> None:
    fresh = Carried(started_at=NOW, steering=SteeringState(deadline_at=NOW))
    assert read_carried(None, fresh) == (fresh, None)
    assert read_carried(fresh.model_dump(mode="json"), fresh) == (fresh, None)
    for odd in ({"a": 1}, 17, [], "carried", {"started_at": "soon"}):
        carried, problem = read_carried(odd, fresh)
        assert carried == fresh
        assert problem is None if not odd else "start it with the spec alone" in (problem or "")
