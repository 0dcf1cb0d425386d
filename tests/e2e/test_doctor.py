"""`durabatch doctor`: what it finds in order, what it finds wrong, and how to fix that."""

from __future__ import annotations

import asyncio

import pytest

from support.workspace import KEY, Workspace


def test_doctor_finds_everything_in_order(served: Workspace) -> None:
    levels: dict[str, str] = {}
    while levels.get("worker") != "ok":  # `dev` is ready a moment before Temporal has seen its worker ask for work
        ended = served.call("doctor", "--json")
        assert ended.code == 0, ended.out
        levels = {check["name"]: check["level"] for check in ended.facts["checks"]}
    for name in ("configuration", "temporal", "worker", "store", "key of stub", "provider stub", "clock"):
        assert levels[name] == "ok", ended.out
    assert levels["key of openai"] == levels["key of anthropic"] == "ok", "nobody wrote them down: they are not missed"
    assert "ok    store" in served.call("doctor").out


def test_doctor_says_what_is_wrong_and_how_to_fix_it(workspace: Workspace) -> None:
    asyncio.run(workspace.admin.revoke(KEY))
    config = workspace.folder / "durabatch.toml"
    (workspace.folder / "file").write_text("")
    text = config.read_text().replace('url = "store"', 'url = "file/store"')
    config.write_text(
        text + '[providers.dead]\nkind = "openai"\nbase_url = "http://127.0.0.1:1"\n'
        '[providers.keyless]\nkind = "openai"\napi_key_env = "NOBODY_SET_THIS"\n'
    )
    ended = workspace.call("doctor", "--json", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert ended.code == 1
    assert ended.facts["ok"] is False
    failed = {check["name"]: check for check in ended.facts["checks"] if check["level"] == "fail"}
    assert set(failed) == {"temporal", "store", "key of keyless", "provider dead", "provider stub"}
    assert "refuses the key (401): Incorrect API key provided" in failed["provider stub"]["fact"]
    assert "KEY" in failed["provider stub"]["fix"]
    assert "NOBODY_SET_THIS" in failed["key of keyless"]["fact"]
    facts = {check["name"]: check["fact"] for check in ended.facts["checks"]}
    assert (facts["key of stub"], facts["key of dead"]) == ("is there", "is not needed")
    config.write_text("[stor]\n")
    broken = workspace.call("doctor")
    assert broken.code == 1
    assert "fail  configuration" in broken.out and "did you mean 'store'" in broken.out


ENVIRONMENTS = {
    "a proxy that speaks SOCKS": (
        {"ALL_PROXY": "socks5://somebody:secret@127.0.0.1:9"},
        ("SOCKS proxy that ALL_PROXY names", "pip install socksio"),
    ),
    "a key with an ellipsis": (
        {"FAR_KEY": "sk-secret\u2026b"},
        ("character 10 of 11 is HORIZONTAL ELLIPSIS", "environment variable FAR_KEY"),
    ),
}


@pytest.mark.parametrize("trouble", ENVIRONMENTS)
@pytest.mark.slow
def test_an_environment_in_which_no_call_can_be_made_is_named_at_once(workspace: Workspace, trouble: str) -> None:
    environ, words = ENVIRONMENTS[trouble]
    config = workspace.folder / "durabatch.toml"
    far = '[providers.far]\nkind = "openai"\nbase_url = "https://far.invalid/v1"\napi_key_env = "FAR_KEY"\n'
    config.write_text(config.read_text() + far)
    environ = {"FAR_KEY": "sk-secret", **environ}
    ended = workspace.run("run", workspace.rows("a"), "--provider", "far", "--model", "gpt-4o-mini", **environ)
    assert ended.code == 1 and not (workspace.folder / ".durabatch" / "temporal.db").exists()
    checked = {one["name"]: one for one in workspace.call("doctor", "--json", **environ).facts["checks"]}
    for said in (ended.err, checked["provider far"]["fact"]):
        assert all(word in said for word in words), said
        assert "secret" not in said
    assert checked["provider far"]["level"] == "fail"


@pytest.mark.slow
def test_doctor_says_what_is_wrong_with_a_base_url(workspace: Workspace) -> None:
    config = workspace.folder / "durabatch.toml"
    url = workspace.admin.url
    text = config.read_text()
    config.write_text(
        text
        + f'[providers.short]\nkind = "openai"\nbase_url = "{url}/?api-version=1"\napi_key_env = "KEY"\n'
        + f'[providers.long]\nkind = "anthropic"\nbase_url = "{url}/v1"\napi_key_env = "KEY"\n'
        + f'[providers.tls]\nkind = "openai"\nbase_url = "{url.replace("http:", "https:")}/v1"\napi_key_env = "KEY"\n'
        + '[providers.nobody]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\napi_key_env = "KEY"\n'
        + f'[providers.right]\nkind = "openai"\nbase_url = "{url}/v1/?api-version=1"\napi_key_env = "KEY"\n'
    )
    found = {one["name"]: one for one in workspace.call("doctor", "--json").facts["checks"]}
    assert found["provider right"]["level"] == "ok"
    assert found["provider short"]["level"] == found["provider long"]["level"] == "fail"
    assert f'base_url = "{url}/v1?api-version=1"' in found["provider short"]["fix"]
    assert f'base_url = "{url}"' in found["provider long"]["fix"]
    assert "does not speak TLS" in found["provider tls"]["fact"] and "http://?" in found["provider tls"]["fact"]
    assert "connection refused" in found["provider nobody"]["fact"]
    asyncio.run(workspace.admin.fault("models", "override", body="<title>Sign in</title><html>", media="text/html"))
    asyncio.run(workspace.admin.fault("models", "override", body="<html><title>Sign in</title>", media="text/html"))
    found = {one["name"]: one for one in workspace.call("doctor", "--json").facts["checks"]}
    assert found["provider stub"]["level"] == "fail"
    assert "GET /models with a body that Durabatch cannot read" in found["provider stub"]["fact"]
    # A word of a base_url may be a password, so none of a refused one is repeated.
    config.write_text(
        text
        + f'[providers.bad]\nkind = "openai"\nbase_url = "{url.replace("//", "//me:{KEY}@")}"\n'.replace("{KEY}", KEY)
    )
    for arguments in (["doctor"], ["providers", "--json"], ["run", workspace.rows("a"), "--provider", "bad"]):
        refused = workspace.run(*arguments)  # looks for the key in all that is printed
        assert refused.code == 1 and "cannot hold a user name or a password" in refused.out + refused.err
