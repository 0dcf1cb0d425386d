"""The keywords of the client's methods are the fields of the spec."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from durabatch.cli.spec_options import SpecOptions
from durabatch.clients.spec_fields import LimitsFields, OnCompleteFields, PollFields, RetryFields, SpecFields
from durabatch.contract import BatchSpec, Limits, Mode, OnComplete, OnInvalidRow, PollPolicy, RetryPolicy

#: The client's own arguments say these.
NAMED = {"provider", "input", "requests"}


@pytest.mark.parametrize(
    ("fields", "model", "named"),
    [
        (SpecFields, BatchSpec, NAMED),
        (PollFields, PollPolicy, set()),
        (RetryFields, RetryPolicy, set()),
        (LimitsFields, Limits, set()),
        (OnCompleteFields, OnComplete, set()),
    ],
)
def test_a_dict_has_the_fields_of_its_model(fields: Any, model: type[BaseModel], named: set[str]) -> None:
    assert set(get_type_hints(fields)) == set(model.model_fields) - named
    assert not fields.__required_keys__


def test_none_may_be_given_where_the_spec_takes_it() -> None:
    for name, hint in get_type_hints(SpecFields).items():
        field = TypeAdapter(BatchSpec.model_fields[name].annotation)
        try:
            field.validate_python(None)
        except ValidationError:
            optional = False
        else:
            optional = True
        assert (type(None) in getattr(hint, "__args__", ())) == optional, name


def test_every_option_reaches_the_spec() -> None:
    options = SpecOptions(
        provider="p",
        model="m",
        endpoint="/v1/responses",
        mode="direct",
        param=["n=1", "stop=END", 'x={"y":[1]}'],
        label=["team=a=b"],
        skip_invalid=True,
        deadline="1h30m",
        max_attempts=3,
        max_rows_per_shard=100,
        max_cost_usd=0.1,
        priority=1,
        fairness_key="tenant-a",
        poll_first="2s",
    )
    fields = options.fields()
    assert set(fields) < set(get_type_hints(SpecFields))
    spec = BatchSpec.model_validate({"provider": options.provider, "input": "x", **fields})
    assert (spec.endpoint, spec.model, spec.mode) == ("/v1/responses", "m", Mode.DIRECT)
    assert spec.params == {"n": 1, "stop": "END", "x": {"y": [1]}}
    assert spec.metadata == {"team": "a=b"}
    assert spec.on_invalid_row is OnInvalidRow.FAIL_ROW
    assert spec.deadline == timedelta(minutes=90)
    assert (spec.retry.max_attempts, spec.limits.max_rows, spec.max_cost_usd) == (3, 100, Decimal("0.1"))
    assert (spec.priority, spec.fairness_key) == (1, "tenant-a")
    assert spec.poll.first == timedelta(seconds=2)
    # What was not given is left to the spec, whose defaults may change.
    assert SpecOptions(provider="p").fields() == {}
