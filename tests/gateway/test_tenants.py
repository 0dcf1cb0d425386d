"""Keys and tenants: every route without a key, and one tenant's objects asked for with another's."""

from __future__ import annotations

import hashlib
import logging

import openai
import pytest
from starlette.routing import Route

from durabatch.gateway import about, batches, files, models
from durabatch.gateway.auth import OPEN

from .conftest import LINE, Door, Opener

KEYS = "".join(
    f'[[gateway.keys]]\ntenant = "{tenant}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n{more}\n'
    for tenant, key, more in (
        ("search", "key-one", ""),
        ("search", "key-two", ""),
        ("ads", "key-ads", 'models = ["gpt-*"]'),
    )
) + (
    '[[gateway.routes]]\nmodel = "gpt-5-mini"\nprovider = "openai"\n'
    '[[gateway.routes]]\nmodel = "claude-haiku-4-5"\nprovider = "anthropic"\n'
    '[[gateway.routes]]\nmodel = "gpt-*"\nprovider = "openai"\n'
)


def every_route() -> list[tuple[str, str]]:
    """Return method and path of every route there is."""
    found = []
    for route in (*about.routes(), *files.routes(), *batches.routes(), *models.routes()):
        assert isinstance(route, Route)
        path = route.path
        for name in route.param_convertors:
            path = path.replace(f"{{{name}:path}}", "x").replace(f"{{{name}}}", "x")
        found += [(method, path) for method in sorted(route.methods or set()) if method != "HEAD"]
    return found


@pytest.mark.parametrize("key", [None, "", "wrong", "Key-one", "key-one\u00e9", "x" * 10_000])
async def test_no_route_but_the_monitors_answers_without_a_known_key(opened: Opener, key: str | None) -> None:
    async with opened(KEYS) as door:
        headers = {} if key is None else {"authorization": f"Bearer {key}".strip().encode()}
        for method, path in every_route():
            answer = await door.http.request(method, path, headers=headers)
            if path in OPEN:
                assert answer.status_code in (200, 503)
                continue
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "invalid_request_error"), path
            assert answer.json()["error"]["code"] == ("invalid_api_key" if key else None)
        # Not even whether there is such a route.
        assert (await door.http.get("/v1/nothing", headers=headers)).status_code == 401


async def test_another_tenants_file_is_not_there(opened: Opener) -> None:
    async with opened(KEYS) as door:
        search, colleague, ads = (door.client(key) for key in ("key-one", "key-two", "key-ads"))
        id = (await search.files.create(file=LINE, purpose="batch")).id
        assert (await colleague.files.retrieve(id)).id == id
        for call in (ads.files.retrieve, ads.files.content, ads.files.delete):
            with pytest.raises(openai.NotFoundError) as hidden:
                await call(id)
            assert hidden.value.body == {
                "message": f"No such File object: {id}",
                "type": "invalid_request_error",
                "param": "id",
                "code": None,
            }
        assert [file.id async for file in ads.files.list()] == []
        assert [file.id async for file in ads.files.list(after=id)] == []
        assert [file.id async for file in colleague.files.list()] == [id]
        assert {path.split("/")[1] for path in door.objects()} == {"search"}


async def test_a_tenant_sees_the_models_that_its_key_may_use(opened: Opener) -> None:
    async with opened(KEYS) as door:
        search, ads = door.client("key-one"), door.client("key-ads")
        assert [(model.id, model.owned_by) async for model in search.models.list()] == [
            ("gpt-5-mini", "openai"),
            ("claude-haiku-4-5", "anthropic"),
        ]
        assert [model.id async for model in ads.models.list()] == ["gpt-5-mini"]
        assert (await ads.models.retrieve("gpt-6")).owned_by == "openai"
        for client, model in ((ads, "claude-haiku-4-5"), (search, "nothing"), (search, "a/model")):
            with pytest.raises(openai.NotFoundError) as unknown:
                await client.models.retrieve(model)
            assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")


async def test_a_key_may_come_as_anthropics_clients_send_it(opened: Opener) -> None:
    async with opened(KEYS) as door:
        answer = await door.http.get("/v1/files", headers={"x-api-key": "key-one"})
        assert answer.status_code == 200


async def test_keys_are_in_no_log(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(KEYS) as door:
        await door.http.get("/v1/files", headers={"authorization": "Bearer key-one"})
        await door.http.get("/v1/files", headers={"authorization": "Bearer secret-guess"})
    logged = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert "key-one" not in logged
    assert "secret-guess" not in logged


async def test_a_web_page_cannot_use_a_gateway_that_needs_no_key(door: Door) -> None:
    for headers in ({"origin": "https://page.example"}, {"host": "rebound.example:8787"}, {"host": "[::1"}):
        answer = await door.http.get("/v1/files", headers=headers)
        assert answer.status_code == 403, headers
    for headers in ({"origin": "http://localhost:3000"}, {"host": "localhost"}, {"host": "[::1]:8787"}):
        assert (await door.http.get("/v1/files", headers=headers)).status_code == 200, headers


async def test_monitors_are_told_whether_requests_can_be_served(door: Door) -> None:
    assert (await door.http.get("/healthz")).json() == {"status": "ok"}
    ready = await door.http.get("/readyz")  # there is no Temporal here
    assert (ready.status_code, ready.json()["store"], ready.json()["temporal"]) == (503, "ok", "does not answer")
    await door.http.get("/v1/files/file-none")
    text = (await door.http.get("/metrics")).text
    assert 'durabatch_gateway_requests_total{route="files.retrieve",status="404"} 1\n' in text
    assert "file-none" not in text
