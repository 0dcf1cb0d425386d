"""Keys and tenants. Every route without a key, and with another tenant's: test_every_route.py."""

from __future__ import annotations

import hashlib
import logging

import openai
import pytest

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


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
async def test_a_request_with_two_keys_in_one_header_is_nobodys(opened: Opener, name: str) -> None:
    async with opened(KEYS) as door:
        keys = [(name, f"{'Bearer ' * (name == 'authorization')}key-{key}") for key in ("one", "two")]
        answer = await door.http.get("/v1/files", headers=keys)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert (await door.http.get("/v1/files", headers=keys[:1])).status_code == 200


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
