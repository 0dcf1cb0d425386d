"""`providers`: the configured providers, and the ledgers of their accounts' queues and rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import rates as shown_rates
from .terminal import print_json, print_message, print_output, run_async
from .terminal import settings as read_settings

if TYPE_CHECKING:
    from ..activities.providers.settings import ProviderSettings
    from ..clients.ledgers import SilentLedger
    from ..contract.ledger import Holder, LedgerView
    from ..contract.rates import RatesView
    from ..contract.status import Mode
    from ..workers.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command(epilog="Example:  durabatch providers openai")(providers)


def providers(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this one, with who has room and who waits.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show the configured providers, how far Durabatch fills their queues, and the rates in use."""
    run_async(_providers(name, json_))


async def _providers(name: str | None, as_json: bool) -> None:
    from ..contract import MissingKey

    settings = read_settings()
    views, rates, silent, note, settings = await _ledgers(settings)
    if name is not None:
        try:
            settings.provider(name)  # says which there are, if this one is not among them
        except MissingKey as error:
            note = note or error.message
    accounts, others = sorted_out(settings, views, rates)
    if name is not None:
        accounts, others = [account for account in accounts if account.settings.name == name], []
        silent = [one for one in silent if any(account.settings.owns(one.account) for account in accounts)]
    if as_json:
        strangers = [] if name is not None else unowned(settings, rates)
        printed = facts(accounts, others, note, silent)
        print_json({**printed, "other_rates": [view.model_dump(mode="json") for view in strangers]})
        return
    shown = [full(account, silent) for account in accounts]
    if name is None:
        named = [(account.settings.name, view) for account in accounts for view in account.rates]
        named += [(view.provider or "?", view) for view in unowned(settings, rates)]
        used = [(provider, view) for provider, view in named if view.workers]  # a ledger outlives its last user
        shown = [table(accounts, others), *([f"\n{shown_rates.table(used)}"] if used else [])]
    print_output("\n".join([*shown, *(one.problem for one in silent)]))
    if note:
        print_message(note)


async def _ledgers(
    settings: Settings,
) -> tuple[list[LedgerView], list[RatesView], list[SilentLedger], str | None, Settings]:
    """Return what the ledgers report and which are silent, or why none is known; and settings with the stand-in too."""
    from ..clients.connection import Embed, translated
    from ..clients.ledgers import answers, rates
    from ..contract import DurabatchError
    from . import stand_in
    from .session import session

    try:
        async with session(Embed.RUNNING, settings) as opened:
            if opened.embedded:
                settings = stand_in.known(settings)
            with translated(opened.connection.client):
                views, silent = await answers(opened.connection.client)
                found, silent_rates = await rates(opened.connection.client)
            return views, found, [*silent, *silent_rates], None, settings
    except DurabatchError as error:
        return [], [], [], f"The ledgers are not known. {error.message}", settings


@dataclass(frozen=True, kw_only=True)
class Account:
    """A configured provider with the ledgers of its account."""

    settings: ProviderSettings
    ledgers: list[LedgerView]
    rates: list[RatesView]


def sorted_out(
    settings: Settings, views: list[LedgerView], rates: Sequence[RatesView] = ()
) -> tuple[list[Account], list[LedgerView]]:
    """Return the configured providers with their ledgers, and the ledgers of accounts that are not configured here."""
    accounts = [
        Account(
            settings=provider,
            ledgers=[view for view in views if provider.owns(view.account)],
            rates=[view for view in rates if provider.owns(view.account)],
        )
        for _, provider in sorted(settings.providers.items())
    ]
    known = {view.account for account in accounts for view in account.ledgers}
    return accounts, [view for view in views if view.account not in known]


def unowned(settings: Settings, rates: Sequence[RatesView]) -> list[RatesView]:
    """Return the rates of accounts that are not configured here."""
    return [view for view in rates if not any(one.owns(view.account) for one in settings.providers.values())]


def facts(
    accounts: list[Account], others: list[LedgerView], note: str | None, silent: Sequence[SilentLedger] = ()
) -> dict[str, Any]:
    """Return everything for a program."""
    return {
        "providers": [
            {
                "name": account.settings.name,
                "kind": account.settings.kind,
                "mode": _mode(account.settings).value,
                "base_url": account.settings.url,
                "key": _key(account.settings),
                "account": account.settings.fingerprint,
                "max_enqueued_tokens": account.settings.max_enqueued_tokens,
                "requests_per_minute": account.settings.requests_per_minute,
                "tokens_per_minute": account.settings.tokens_per_minute,
                "max_concurrent_requests": account.settings.max_concurrent_requests,
                "ledgers": [view.model_dump(mode="json") for view in account.ledgers],
                "rates": [view.model_dump(mode="json") for view in account.rates],
            }
            for account in accounts
        ],
        "other_ledgers": [view.model_dump(mode="json") for view in others],
        "silent_ledgers": [asdict(one) for one in silent],
        "note": note,
    }


def table(accounts: list[Account], others: list[LedgerView]) -> str:
    """Return a line for each provider, and one for each further ledger of it."""
    rows = [("PROVIDER", "KIND", "MODE", "BASE URL", "KEY", "LIMIT", "MODEL", "IN USE", "HOLD", "WAIT")]
    for account in accounts:
        settings = account.settings
        limit = f"{settings.max_enqueued_tokens:,}" if settings.max_enqueued_tokens else "none"
        named = (settings.name, settings.kind, _mode(settings).value, settings.url, _key(settings))
        if not account.ledgers:
            rows.append((*named, limit, "", "", "", ""))
        for number, view in enumerate(account.ledgers):
            rows.append((*(named if not number else ("", "", "", "", "")), *_cells(view)))
    for view in others:
        rows.append((view.provider or "?", "", "", f"account {view.account}, not configured here", "", *_cells(view)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cells(view: LedgerView) -> tuple[str, str, str, str, str]:
    waiting = f"{view.waiting:,} ({view.waiting_tokens:,} tokens)" if view.waiting else "0"
    return f"{view.limit:,}", view.model, f"{view.in_use:,}", f"{view.holders:,}", waiting


def full(account: Account, silent: Sequence[SilentLedger] = ()) -> str:
    """Return everything about one provider: who has room, and who waits."""
    from ..contract.status import Mode

    settings, mode = account.settings, _mode(account.settings)
    lines = [
        f"Provider  {settings.name} ({settings.kind}, {settings.url})",
        f"Key       {_key(settings)}; account {settings.fingerprint}",
        f"Mode      {mode.value}",
    ]
    if mode is Mode.DIRECT:
        lines.append(f"Rate      {_rate(settings)}")
    if mode is Mode.BATCH or account.ledgers:
        lines.append(
            f"Limit     {f'{settings.max_enqueued_tokens:,} tokens' if settings.max_enqueued_tokens else 'none'}"
        )
        if not account.ledgers and not silent:  # one that is silent may hold anything
            lines.append("No shard has room in its queue, and none waits.")
    for view in account.ledgers:
        lines.append(f"\n{view.model}: {view.in_use:,} of {view.limit:,} tokens in use")
        lines += _holders("have room", view.holders, view.holding)
        lines += _holders("wait, the next one first" if view.waiting else "wait", view.waiting, view.queue)
    for rate in account.rates:
        lines += shown_rates.lines(rate)
    return "\n".join(lines)


def _mode(settings: ProviderSettings) -> Mode:
    from ..contract.status import Mode

    return settings.mode or Mode.BATCH


def _rate(settings: ProviderSettings) -> str:
    """Return what is configured for direct mode; a lower limit in the provider's own headers counts as well."""
    limits = ((settings.requests_per_minute, "requests a minute"), (settings.tokens_per_minute, "tokens a minute"))
    parts = [f"{limit:,} {what}" for limit, what in limits if limit is not None]
    return f"{', '.join([*parts, f'{settings.max_concurrent_requests:,} calls in flight'])} at most"


def _holders(what: str, count: int, shown: tuple[Holder, ...]) -> list[str]:
    width = max((len(one.holder) for one in shown), default=0)
    lines = [f"  {count:,} {what}"]
    lines += [f"    {one.holder:<{width}}  {one.tokens:,} tokens, since {_local(one.since)}" for one in shown]
    return [*lines, f"    … and {count - len(shown):,} more"] if count > len(shown) else lines


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _key(settings: ProviderSettings) -> str:
    from ..activities.providers.settings import NO_KEY

    if settings.api_key is None:
        return "missing"
    return "not needed" if settings.api_key.get_secret_value() == NO_KEY else "set"
