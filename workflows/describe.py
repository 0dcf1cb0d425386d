"""The markdown that the Web UI shows of a batch, made from its progress. Pure."""

from __future__ import annotations

from datetime import datetime

from ..contract import BatchProgress, Counts
from ..contract.steps import Applied


def details(progress: BatchProgress) -> str:
    """Return a batch's progress as a few lines of markdown, for somebody at 3 a.m."""
    lines = [f"**{progress.phase}** at provider `{progress.provider}`{_shards(progress)}", "", _rows(progress.counts)]
    if progress.provider_batch_id:
        lines.append(
            f"- Provider batch `{progress.provider_batch_id}`: **{progress.provider_status_raw}** "
            f"(attempt {progress.attempt})"
        )
    if progress.cancel_requested and not progress.result:
        lines.append("- **A cancel is on its way.**")
    if progress.waiting_for:
        lines.append(f"- Waiting: {_plain(progress.waiting_for)}")
    if progress.next_poll_at:
        lines.append(f"- Next look at {_time(progress.next_poll_at)} (signal `poll_now` looks at once)")
    if progress.last_error:
        lines.append(f"- Last error: {_plain(progress.last_error)}")
    if progress.deadline_at and not progress.result:
        lines.append(f"- Deadline {_time(progress.deadline_at)}")
    return "\n".join(lines)


def failure_words(applied: Applied) -> str:
    """Return why not one row succeeded, in a sentence."""
    ranked = sorted(applied.classes.items(), key=lambda item: (-item[1], item[0]))[:5]
    reasons = ", ".join(f"{rows:,} {name}" for name, rows in ranked)
    return f"No row succeeded: {reasons or 'no row was sent'}."


def _rows(counts: Counts) -> str:
    if not counts.total:
        return "- Rows: not counted yet"
    parts = [f"{counts.succeeded:,} succeeded"]
    parts += [
        f"{value:,} {name}"
        for name, value in (("failed", counts.failed), ("canceled", counts.canceled), ("expired", counts.expired))
        if value
    ]
    return f"- Rows: {', '.join(parts)} of {counts.total:,}"


def _shards(progress: BatchProgress) -> str:
    shards = progress.shards
    return f", {shards.ended:,} of {shards.total:,} shards ended" if shards.total > 1 else ""


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _plain(text: str) -> str:
    """Keep a provider's words from being read as markdown."""
    return text.replace("`", "'").replace("*", "∗").replace("\n", " ")
