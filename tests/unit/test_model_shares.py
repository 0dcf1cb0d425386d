"""What each model answered, added up over the parts of a batch."""

from __future__ import annotations

from durabatch.activities.model_shares import MAX_MODELS, OTHERS, add_models
from durabatch.contract import ModelShare, Usage


def share(answers: int, cost: str | None) -> ModelShare:
    usage = Usage(input_tokens=answers, output_tokens=2 * answers)
    return ModelShare(answers=answers, usage=usage, cost_usd=cost, list_cost_usd=cost and str(2 * int(cost)))


def test_shares_of_one_model_are_added_and_unknown_costs_are_no_costs() -> None:
    found = add_models({"a": share(1, "1"), "b": share(2, None)}, {"a": share(3, "4"), "b": share(1, None)})
    assert found["a"] == share(4, "5")
    assert found["b"] == share(3, None)
    assert add_models({"a": share(1, None)}, {"a": share(1, "3")})["a"].cost_usd == "3"


def test_no_more_models_are_counted_one_by_one_than_may_go_through_temporal() -> None:
    many = {f"m{number}": share(1, "1") for number in range(MAX_MODELS + 5)}
    found = add_models(many, {"new": share(1, "1"), "m3": share(1, "1")})
    assert len(found) == MAX_MODELS + 1
    assert found[OTHERS].answers == 6
    assert found["m3"].answers == 2
    assert sum(one.answers for one in found.values()) == MAX_MODELS + 7
