"""`webhooks`: what became of the events that the gateway sends to its tenants, and sending them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import print_json, print_message, print_output, run_async
from .terminal import settings as read_settings

if TYPE_CHECKING:
    from ..contract.webhooks import Delivery

app = typer.Typer(no_args_is_help=True, help="Webhooks to the gateway's tenants: list, resend, enable.")

Tenant = Annotated[str, typer.Option(help="Whose they are.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def register(parent: typer.Typer) -> None:
    """Add the subcommands."""
    parent.add_typer(app, name="webhooks", epilog="Example:  durabatch webhooks list --tenant search")


@app.command("list", epilog="Example:  durabatch webhooks list --tenant search")
def list_(
    tenant: Tenant = "default",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many events at most.")] = 50,
    json_: Json = False,
) -> None:
    """List a tenant's webhooks and its events, those of the newest batches first."""
    run_async(_list(tenant, limit, json_))


async def _list(tenant: str, limit: int, as_json: bool) -> None:
    from ..clients.webhooks import deliveries, endpoint_status
    from .session import session

    names = [one.name for one in read_settings().gateway.webhooks if one.tenant == tenant]
    async with session() as opened:
        found, _ = await deliveries(opened.client, tenant, limit=limit)
        states = {name: await endpoint_status(opened.client, tenant, name) for name in names}
    if as_json:
        print_json({"webhooks": states, "deliveries": [one.model_dump(mode="json") for one in found]})
        return
    for name, state in states.items():
        print_message(f"The webhook {name} of {tenant} is {state}.")
    if not found:
        print_message(f"There are no events of {tenant}.")
    for one in found:
        print_output(_line(one))


def _line(one: Delivery) -> str:
    why = f"  {one.error}" if one.error and one.status != "delivered" else ""
    tries = f"{one.attempts} attempt{'s' * (one.attempts != 1)}"
    return f"{one.id}  {one.type}  {one.batch_id}  {one.endpoint}  {one.status}, {tries}{why}"


@app.command(epilog="Example:  durabatch webhooks resend evt_019a… --tenant search")
def resend(
    id: Annotated[str, typer.Argument(metavar="ID", help="The event's id, as `list` shows it.")],
    tenant: Tenant = "default",
    json_: Json = False,
) -> None:
    """Send an event again, whatever became of it. It keeps its id, and is tried for another day."""
    run_async(_resend(id, tenant, json_))


async def _resend(id: str, tenant: str, as_json: bool) -> None:
    from ..clients.webhooks import resend
    from ..contract import InvalidSpec
    from .session import session

    async with session() as opened:
        found = await resend(opened.client, tenant, id)
    if found is None:
        shown = f"`durabatch webhooks list --tenant {tenant}` shows those that there are."
        raise InvalidSpec(f"There is no event {id[:100]!r} of {tenant}: {shown}")
    _done(found.model_dump(mode="json"), f"The event {found.id} is sent to the webhook {found.endpoint}.", as_json)


@app.command(epilog="Example:  durabatch webhooks enable default --tenant search")
def enable(
    name: Annotated[str, typer.Argument(help="The webhook's name in durabatch.toml.")] = "default",
    tenant: Tenant = "default",
    json_: Json = False,
) -> None:
    """Try a webhook again at once that answered 410, or failed too often; what waits for it is sent."""
    run_async(_enable(name, tenant, json_))


async def _enable(name: str, tenant: str, as_json: bool) -> None:
    from ..clients.webhooks import enable
    from ..contract import ConfigurationError
    from .session import session

    if all((one.tenant, one.name) != (tenant, name) for one in read_settings().gateway.webhooks):
        raise ConfigurationError(f"There is no webhook {name[:80]!r} of {tenant[:80]!r} in durabatch.toml.")
    async with session() as opened:
        await enable(opened.client, tenant, name)
    _done({"tenant": tenant, "name": name}, f"The webhook {name} of {tenant} is enabled.", as_json)


def _done(facts: dict[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        print_output(words)
