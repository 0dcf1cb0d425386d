"""The options that say what a batch shall be, declared once for every command that starts one."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from ..clients.spec_fields import SpecFields


@dataclass(frozen=True, kw_only=True)
class SpecOptions:
    """What the command line says of a batch; None where it says nothing and the spec's own default holds."""

    provider: Annotated[str, typer.Option("--provider", "-p", help="Name of a provider in the configuration.")]
    id: Annotated[str | None, typer.Option("--id", help="The batch's id; made from the content by default.")] = None
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model of the rows that name none.")] = None
    endpoint: Annotated[
        str | None, typer.Option(help="Path of the provider's API for every row; /v1/chat/completions by default.")
    ] = None
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="batch|direct",
            help="By the provider's batch API, or row by row at the list price; as configured by default.",
        ),
    ] = None
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="Default for every row's body; VALUE is JSON or text."),
    ] = None
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Label that is kept in the result.")
    ] = None
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Let rows that cannot be sent fail alone, and send the others.")
    ] = False
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long the batch may take, such as 26h.")
    ] = None
    max_attempts: Annotated[int | None, typer.Option(help="How often a row is submitted at most.")] = None
    max_rows_per_shard: Annotated[int | None, typer.Option(help="Rows of one provider batch at most.")] = None
    max_cost_usd: Annotated[
        float | None, typer.Option(help="Refuse the batch if its input alone is estimated to cost more.")
    ] = None
    priority: Annotated[
        int | None,
        typer.Option(help="Whose turn is first where an account's queue is full: 1 first, 5 last; 3 by default."),
    ] = None
    fairness_key: Annotated[
        str | None, typer.Option(help="Batches with one key, such as a tenant, share one turn among all keys.")
    ] = None
    poll_first: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long to wait before the first poll of the provider.")
    ] = None

    def __post_init__(self) -> None:
        """Refuse what is not NAME=VALUE before anything is read.

        Raises:
            typer.BadParameter: a --param or a --label is not.
        """
        self.fields()

    def polling_first(self, duration: str) -> SpecOptions:
        """Return these options with a wait before the first poll, where they do not say one."""
        return self if self.poll_first else replace(self, poll_first=duration)

    def fields(self) -> SpecFields:
        """Return the fields of the spec that were given."""
        given: dict[str, Any] = {
            "endpoint": self.endpoint,
            "mode": self.mode,
            "model": self.model,
            "params": {name: _value(value) for name, value in _pairs("--param", self.param)} or None,
            "metadata": dict(_pairs("--label", self.label)) or None,
            "on_invalid_row": "fail_row" if self.skip_invalid else None,
            "deadline": self.deadline,
            "retry": None if self.max_attempts is None else {"max_attempts": self.max_attempts},
            "limits": None if self.max_rows_per_shard is None else {"max_rows": self.max_rows_per_shard},
            # By way of text, so that 0.1 stays 0.1.
            "max_cost_usd": None if self.max_cost_usd is None else str(self.max_cost_usd),
            "priority": self.priority,
            "fairness_key": self.fairness_key,
            "poll": None if self.poll_first is None else {"first": self.poll_first},
        }
        found: SpecFields = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]
        return found


def with_spec_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `SpecOptions` after its first argument; it gets them as its argument `options`."""
    hints = get_type_hints(SpecOptions, include_extras=True)
    names = [field.name for field in fields(SpecOptions)]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = SpecOptions(**{name: given.pop(name) for name in names})
        command(options=options, **given)

    # typer reads a command's options from its signature.
    shared = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(SpecOptions).parameters.items()
    ]
    input, *rest = (
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if name != "options"
    )
    parameters = [input, *shared, *rest]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _pairs(option: str, words: list[str] | None) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise typer.BadParameter("must be NAME=VALUE", param_hint=option)
        pairs.append((name, value))
    return pairs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
