"""The keywords of the client's methods are the fields of the spec."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from durabatch.cli.spec_options import SpecOptions
from durabatch.clients.spec_fields import LimitsFields, OnCompleteFields, PollFields, RetryFields, SpecFields
from durabatch.contract import BatchSpec, Limits, OnComplete, PollPolicy, RetryPolicy

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


def test_every_option_of_the_command_is_a_field_that_the_spec_takes() -> None:
    options = SpecOptions(
        provider="openai",
        id="b",
        model="m",
        endpoint="/v1/responses",
        param=["temperature=0.5", "user=me"],
        label=["team=a"],
        skip_invalid=True,
        deadline="1h",
        max_attempts=3,
        max_rows_per_shard=10,
        max_cost_usd=0.1,
        priority=1,
        fairness_key="k",
        poll_first="2s",
    )
    fields = options.fields()
    assert set(fields) < set(get_type_hints(SpecFields))
    spec = BatchSpec.model_validate({"provider": options.provider, "input": "x", **fields})
    assert spec.params == {"temperature": 0.5, "user": "me"}
    assert (str(spec.max_cost_usd), spec.limits.max_rows, spec.retry.max_attempts) == ("0.1", 10, 3)
    assert SpecOptions(provider="openai").fields() == {}
