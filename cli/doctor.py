"""`doctor`: is everything there that a batch needs, and how is it fixed?"""

from __future__ import annotations

from typing import Annotated

import typer

from .terminal import print_json, print_output, run_async


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command(epilog="Example:  durabatch doctor --json")(doctor)


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Check that everything a batch needs is there.

    Python, configuration, Temporal, worker, store, keys, providers and clock; it says how to fix what is wrong.
    Keys are never printed. Exit code: 1 if anything fails.
    """
    raise typer.Exit(run_async(_doctor(json_)))


async def _doctor(as_json: bool) -> int:
    from .checks import Level, examine

    findings = await examine()
    failed = any(finding.level is Level.FAIL for finding in findings)
    if as_json:
        print_json({"ok": not failed, "checks": [finding.facts() for finding in findings]})
        return int(failed)
    width = max(len(finding.name) for finding in findings) + 2
    for finding in findings:
        print_output(f"{finding.level.value:<6}{finding.name:<{width}}{finding.fact}")
        if finding.fix:
            print_output(f"{'':<{6 + width}}→ {finding.fix}")
    return int(failed)
