"""Which path is which operation."""

from __future__ import annotations

from aiohttp import web

from . import admin, batches, files, live, message_batches
from .errors import Protocol, Refusal
from .guard import guarded
from .prompt import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, MODERATIONS, RESPONSES
from .provider import Handler, answer

_Route = tuple[str, str, str, Handler]

_OPENAI: tuple[_Route, ...] = (
    ("POST", "/v1/files", "files.create", files.create),
    ("GET", "/v1/files", "files.list", files.listing),
    ("GET", "/v1/files/{file_id}", "files.retrieve", files.retrieve),
    ("GET", "/v1/files/{file_id}/content", "files.content", files.content),
    ("DELETE", "/v1/files/{file_id}", "files.delete", files.delete),
    ("POST", "/v1/batches", "batches.create", batches.create),
    ("GET", "/v1/batches", "batches.list", batches.listing),
    ("GET", "/v1/batches/{batch_id}", "batches.retrieve", batches.retrieve),
    ("POST", "/v1/batches/{batch_id}/cancel", "batches.cancel", batches.cancel),
    ("POST", CHAT, "chat", live.live("chat", CHAT)),
    ("POST", RESPONSES, "responses", live.live("responses", RESPONSES)),
    ("POST", EMBEDDINGS, "embeddings", live.live("embeddings", EMBEDDINGS)),
    ("POST", COMPLETIONS, "completions", live.live("completions", COMPLETIONS)),
    ("POST", MODERATIONS, "moderations", live.live("moderations", MODERATIONS)),
)

_ANTHROPIC: tuple[_Route, ...] = (
    ("POST", "/v1/messages/batches", "batches.create", message_batches.create),
    ("GET", "/v1/messages/batches", "batches.list", message_batches.listing),
    ("GET", "/v1/messages/batches/{batch_id}", "batches.retrieve", message_batches.retrieve),
    ("POST", "/v1/messages/batches/{batch_id}/cancel", "batches.cancel", message_batches.cancel),
    ("DELETE", "/v1/messages/batches/{batch_id}", "batches.delete", message_batches.delete),
    ("GET", "/v1/messages/batches/{batch_id}/results", "batches.results", message_batches.results),
    ("POST", MESSAGES, "messages", live.live("messages", MESSAGES)),
)

#: Paths that both protocols have: OpenAI's handler and Anthropic's.
_SHARED: tuple[tuple[str, str, str, Handler, Handler], ...] = (
    ("GET", "/v1/models", "models", live.openai_models, live.anthropic_models),
    ("GET", "/v1/models/{model}", "models", live.openai_model, live.anthropic_model),
)

_ADMIN: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/admin/settings", admin.read_settings),
    ("POST", "/admin/settings", admin.change_settings),
    ("GET", "/admin/faults", admin.read_faults),
    ("POST", "/admin/faults", admin.add_fault),
    ("DELETE", "/admin/faults", admin.clear_faults),
    ("DELETE", r"/admin/faults/{fault_id:\d+}", admin.clear_faults),
    ("GET", "/admin/books", admin.books),
    ("POST", "/admin/reset", admin.reset),
    ("POST", "/admin/keys", admin.change_key),
)


def add_routes(app: web.Application) -> None:
    """Give an application every route of the sandbox."""
    for method, path, op, handler in _OPENAI:
        app.router.add_route(method, path, guarded(op, Protocol.OPENAI, handler))
    for method, path, op, handler in _ANTHROPIC:
        app.router.add_route(method, path, guarded(op, Protocol.ANTHROPIC, handler))
    for method, path, op, openai, anthropic in _SHARED:
        app.router.add_route(method, path, _by_header(op, openai, anthropic))
    for method, path, handler in _ADMIN:
        app.router.add_route(method, path, admin.admin(handler))
    app.router.add_route("*", "/{tail:.*}", _unknown)


def _by_header(op: str, openai: Handler, anthropic: Handler) -> Handler:
    """Anthropic's answer for whoever sends Anthropic's version header, else OpenAI's."""
    for_openai = guarded(op, Protocol.OPENAI, openai)
    for_anthropic = guarded(op, Protocol.ANTHROPIC, anthropic)

    async def choose(request: web.Request) -> web.StreamResponse:
        return await (for_anthropic if "anthropic-version" in request.headers else for_openai)(request)

    return choose


async def _unknown(request: web.Request) -> web.Response:
    message = f"Unknown request URL: {request.method} {request.path}."
    return answer(Refusal(404, message, code="unknown_url").openai(), 404)
