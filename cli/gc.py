"""`gc`: what batches have left behind, and the removal of what nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import print_json, print_message, print_output, run_async

if TYPE_CHECKING:
    from ..activities.providers.settings import ProviderSettings
    from ..clients.gc.sweep import Findings, Removed
    from ..workers.settings import Settings

#: Batches that are named; the others are counted.
_NAMED = 3


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command(epilog="Example:  durabatch gc --older-than 30d, and then the same with --delete")(gc)


def gc(
    older_than: Annotated[
        str, typer.Option(metavar="DURATION", help="How long ago a batch must have ended, such as 30d.")
    ] = "30d",
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this nothing is changed.")] = False,
    results: Annotated[bool, typer.Option("--results", help="Results and plans too: the whole folders.")] = False,
    provider: Annotated[
        str | None,
        typer.Option("--provider", "-p", help="Of the providers, look only at this one; by default at all with a key."),
    ] = None,
    cancel_orphans: Annotated[
        bool,
        typer.Option("--cancel-orphans", help="With --delete: cancel provider batches that no batch here follows."),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show what old batches have left behind, in the store and at the providers; --delete removes it.

    Batches that run are never touched. Exit code: 1 if a provider could not be asked.
    """
    if cancel_orphans and not delete:
        raise typer.BadParameter("needs --delete", param_hint="--cancel-orphans")
    raise typer.Exit(run_async(_gc(_duration(older_than), delete, results, provider, cancel_orphans, json_)))


async def _gc(
    rest: timedelta, delete: bool, results: bool, provider: str | None, cancel_orphans: bool, as_json: bool
) -> int:
    from ..clients.gc.sweep import Sweep
    from . import stand_in
    from .session import session

    async with session() as opened:
        settings = stand_in.beside(opened.settings) if opened.embedded else opened.settings
        asked, not_asked = _providers(settings, provider)
        clearing = Sweep(
            opened.connection.client,
            opened.client.store,
            asked,
            rest=rest,
            results=results,
            say=print_message,
            keep=settings.gateway.keep,
        )
        found = await clearing.look()
        removed = await clearing.remove(found, orphans=cancel_orphans) if delete else None
    if as_json:
        print_json(facts(found, removed, rest, results, not_asked))
    else:
        print_output(text(found, removed, rest, results, not_asked))
    for message in found.failures.values():
        print_message(f"error: {message}")
    return int(bool(found.failures))


def _providers(settings: Settings, name: str | None) -> tuple[list[ProviderSettings], dict[str, str]]:
    """Return the providers to look at, and why the others cannot be asked; with a name, that one or its error."""
    from ..contract import MissingKey

    asked: list[ProviderSettings] = []
    not_asked: dict[str, str] = {}
    for each in [name] if name else settings.providers:
        try:
            asked.append(settings.provider(each))
        except MissingKey as error:
            if name:
                raise
            not_asked[each] = error.message
    return asked, not_asked


def _duration(text: str) -> timedelta:
    from pydantic import TypeAdapter, ValidationError

    from ..contract import Duration

    try:
        found: timedelta = TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        found = timedelta(-1)
    if found < timedelta(0):
        raise typer.BadParameter('must be a duration such as "30d" or "12h"', param_hint="--older-than")
    return found


@dataclass(frozen=True, kw_only=True)
class Group:
    """Things that share a place, and the reason why they go or stay."""

    place: str  #: "store", or the provider's name.
    what: str
    count: int
    unit: str
    bytes: int
    batches: list[str]


def facts(
    found: Findings,
    removed: Removed | None,
    rest: timedelta,
    results: bool,
    not_asked: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what was found for a program."""
    return {
        "deleted": removed is not None,
        "older_than_seconds": rest.total_seconds(),
        "removable": [asdict(group) for group in _removable(found, rest, results)],
        "kept": [asdict(group) for group in _kept(found, results)],
        "orphans": [
            {
                "provider": orphan.provider,
                "provider_batch_id": orphan.found.batch.id,
                "batch_id": orphan.batch_id,
                "marker": orphan.found.marker,
                "status": orphan.found.batch.raw_status,
                "rows": orphan.found.batch.total,
            }
            for orphan in found.orphans
        ],
        "removed": asdict(removed) if removed else None,
        "failures": found.failures,
        "not_asked": dict(not_asked),
    }


def text(
    found: Findings,
    removed: Removed | None,
    rest: timedelta,
    results: bool,
    not_asked: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return what was found, and what became of it, for a person."""
    again = frozenset(removed.resumed) if removed else frozenset[str]()
    removable, kept = _removable(found, rest, results, again), _kept(found, results)
    # A provider that failed on the way may still have some of its files.
    partly = [group for group in removable if removed and group.place in found.failures]
    wholly = [group for group in removable if group not in partly]
    lines = []
    if wholly:
        lines += ["Removed:" if removed else "Would be removed (with --delete):", *_table(wholly)]
    if partly:
        lines += ["Not all removed, as the provider failed:", *_table(partly)]
    if kept:
        lines += ["Stays:", *_table(kept)]
    if found.orphans:
        lines.append("Provider batches that cost money, and that no batch here follows:")
        for orphan in found.orphans:
            batch = orphan.found.batch
            lines.append(
                f"  {orphan.provider}  {batch.id} ({orphan.found.marker}, {batch.raw_status}, {batch.total:,} rows)"
            )
        if not (removed and removed.canceled):
            lines.append(
                "  Give the same requests, options and id again to go on where it was, or cancel it with "
                "--delete --cancel-orphans."
            )
    if removed:
        lines.append(_outcome(removed))
    elif not removable:
        lines.append("There is nothing to remove.")
    lines += [f"Not asked: {reason}" for reason in not_asked.values()]
    return "\n".join(lines)


def _outcome(removed: Removed) -> str:
    said = (
        f"Removed {_counted(removed.objects, 'object')} from the store, {_counted(removed.files, 'file')} at providers"
    )
    if removed.gateway_files:
        said += f", {_counted(removed.gateway_files, 'file')} of the gateway's whose time was over"
    if removed.gateway_batches:
        said += f", what {_counted(removed.gateway_batches, 'batch')} of the gateway's needs no longer"
    if removed.canceled:
        said += f", and cancelled {_counted(len(removed.canceled), 'provider batch')}"
    if removed.resumed:
        said += f"; left alone, as they run again: {', '.join(removed.resumed)}"
    return f"{said}."


def _removable(found: Findings, rest: timedelta, results: bool, again: frozenset[str] = frozenset()) -> list[Group]:
    """Return what may go, without what is of batches that run again."""
    from ..clients.gc.at_providers import Upload, uploader
    from ..clients.gc.decisions import ABANDONED_REST, Reason
    from ..contract.names import batch_of

    which, untouched = "all" if results else "all but the results", f"untouched for {_days(max(rest, ABANDONED_REST))}"
    what = {
        Reason.OVER: f"{which} of batches that ended {_days(rest)} ago or earlier",
        Reason.ABANDONED: f"all of batches that left no result, {untouched}",
        Reason.TRIED: "all of tries that were killed",
        Reason.UNFINISHED: f"all of batches that left no result, and what they bought, {untouched}",
    }
    groups = []
    for reason, words in what.items():
        piles = [
            pile for pile in found.piles if pile.reason is reason and pile.removable and pile.batch.id not in again
        ]
        entries = [entry for pile in piles for entry in pile.removable]
        groups.append(_group("store", words, "object", (entry.size for entry in entries), [p.batch.id for p in piles]))
    groups.append(_group("store", "claims of batches that have ended", "object", (one.size for one in found.claims)))
    for name, uploads in found.uploads.items():
        files = [file for file in uploads.get(Upload.LEFT, []) if batch_of(uploader(file.name) or "") not in again]
        groups.append(_group(name, Upload.LEFT, "file", (file.bytes for file in files)))
    return [group for group in groups if group.count]


def _kept(found: Findings, results: bool) -> list[Group]:
    from ..clients.gc.at_providers import Upload
    from ..clients.gc.decisions import Reason

    groups = []
    for reason in (reason for reason in Reason if not reason.ripe(results)):
        batches = [pile.batch for pile in found.piles if pile.reason is reason]
        entries = [entry for batch in batches for folder in batch.folders for entry in folder.entries]
        sizes = (entry.size for entry in entries)
        groups.append(_group("store", reason, "object", sizes, [batch.id for batch in batches]))
    for name, uploads in found.uploads.items():
        for kind in (Upload.NEEDED, Upload.AT_WORK, Upload.YOUNG, Upload.ELSEWHERE):
            groups.append(_group(name, f"uploads: {kind}", "file", (file.bytes for file in uploads.get(kind, []))))
    for name, count in found.elsewhere.items():
        groups.append(_group(name, "under way, and not of this store", "provider batch", [0] * count))
    return [group for group in groups if group.count]


def _group(place: str, what: str, unit: str, sizes: Iterable[int], batches: list[str] | None = None) -> Group:
    found = list(sizes)
    return Group(place=place, what=str(what), count=len(found), unit=unit, bytes=sum(found), batches=batches or [])


def _table(groups: list[Group]) -> list[str]:
    rows = [(group.place, _counted(group.count, group.unit), _size(group.bytes), _said(group)) for group in groups]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        f"  {place:<{widths[0]}}  {count:>{widths[1]}}  {size:>{widths[2]}}  {said}"
        for place, count, size, said in rows
    ]


def _said(group: Group) -> str:
    if not group.batches:
        return group.what
    more = len(group.batches) - _NAMED
    return f"{group.what}: {', '.join(group.batches[:_NAMED])}{f' and {more:,} more' if more > 0 else ''}"


def _counted(count: int, unit: str) -> str:
    return f"{count:,} {unit if count == 1 else f'{unit}es' if unit.endswith('ch') else f'{unit}s'}"


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def _days(rest: timedelta) -> str:
    days = rest / timedelta(days=1)
    return f"{days:g} day{'s' * (days != 1)}" if days == int(days) else f"{rest / timedelta(hours=1):g} hours"
