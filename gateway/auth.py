"""Whose request it is, decided before anything of it is read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ..activities.providers.settings import is_loopback
from .errors import ApiError, answer, speaks_anthropic
from .tenants import Tenants

#: What load balancers and monitors ask, which have no key.
OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
#: What providers send, who sign it instead.
SIGNED = "/webhooks/"


class Authentication:
    """Middleware that puts the caller's tenant into the request's state, and refuses callers without one."""

    def __init__(self, app: ASGIApp, tenants: Tenants) -> None:
        self._app = app
        self._tenants = tenants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or scope["path"].startswith(SIGNED):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if self._tenants.open and not _from_here(request):
            await answer(_STRANGER, scope)(scope, receive, send)
            return
        if (twice := _twice(request)) is not None:
            await answer(twice, scope)(scope, receive, send)
            return
        key = _key(request)
        tenant = self._tenants.of(key)
        if tenant is None:
            await answer(_refusal(bool(key), scope), scope)(scope, receive, send)
            return
        scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)


_STRANGER = ApiError(
    403, "Without keys the gateway serves only programs of this machine that name it by a loopback address."
)


def _from_here(request: Request) -> bool:
    """Whether a request that needs no key was not sent by a web page, of another site or under another name.

    A browser on this machine reaches loopback on behalf of any page that it shows.
    """
    hosts = request.headers.getlist("host") or [""]
    named = [*(f"http://{host}" for host in hosts), *request.headers.getlist("origin")]
    try:
        return all(is_loopback(url) for url in named)
    except ValueError:  # half an IPv6 address
        return False


def _twice(request: Request) -> ApiError | None:
    """Return the refusal of a request with two keys in one header, of which a proxy before us may go by the other."""
    for name in ("authorization", "x-api-key"):
        if len(request.headers.getlist(name)) > 1:
            return ApiError(400, f"The request has more than one {name} header: send one.")
    return None


def _key(request: Request) -> str | None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    bearer = given.strip() if scheme.lower() == "bearer" else None
    own = request.headers.get("x-api-key")
    # Of two, each provider's server takes the one that is its own.
    first, second = (own, bearer) if speaks_anthropic(request.scope) else (bearer, own)
    return second if first is None else first


def _refusal(given: bool, scope: Scope) -> ApiError:
    if speaks_anthropic(scope):
        return ApiError(401, "invalid x-api-key" if given else "x-api-key header is required")
    if given:
        return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
    return ApiError(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY).",
    )
