"""`durabatch gateway` and `gateway-key`, as processes that official clients talk to."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest

from durabatch.workers.embedded import temporal_server
from support.workspace import TIME_LIMIT, Workspace, finish

ROOT = Path(__file__).parents[2]
LINE = {"method": "POST", "url": "/v1/chat/completions"}
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@contextlib.contextmanager
def gateway(here: Workspace, *options: str, host: str = "127.0.0.1") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a gateway and yield its base URL, and its process; it is stopped unless it has ended."""
    process = here.start("gateway", "--port", "0", "--json", "--host", host, *options)
    assert process.stdout is not None
    try:
        printed = "".join(iter(process.stdout.readline, "}\n"))
        assert printed, process.communicate()
        yield json.loads(printed + "}")["base_url"], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        ended = finish(process)
    assert ended.code in (0, -signal.SIGKILL), ended.err


def client(base_url: str, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60, _strict_response_validation=True)


def test_one_command_is_enough_for_the_official_client(workspace: Workspace) -> None:
    lines = [{"custom_id": f"r{number}", **LINE, "body": BODY} for number in range(3)]
    (workspace.folder / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with gateway(workspace, "--provider", "sandbox") as (base_url, _):
        environ = {**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "any"}
        done = subprocess.run(
            [sys.executable, ROOT / "examples" / "openai_client.py"],
            cwd=workspace.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
        )
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["custom_id"] for row in rows] == ["r0", "r1", "r2"]
        assert all(row["response"]["body"]["choices"] for row in rows)
        ready = httpx2.get(base_url.removesuffix("v1") + "readyz")
        assert ready.json() == {"status": "ok", "store": "ok", "temporal": "ok"}
    assert not temporal_server(workspace.folder / ".durabatch").alive()


@pytest.mark.slow
def test_a_route_to_the_sandbox_starts_it_and_one_to_a_provider_without_a_key_is_warned_of(
    workspace: Workspace,
) -> None:
    with (workspace.folder / "durabatch.toml").open("a") as config:
        for model, provider in (("claude-*", "anthropic"), ("*", "sandbox")):
            config.write(f'[[gateway.routes]]\nmodel = "{model}"\nprovider = "{provider}"\n')
    with gateway(workspace) as (base_url, process):
        door = client(base_url)
        row = json.dumps({"custom_id": "r", **LINE, "body": BODY}).encode()
        file = door.files.create(file=("rows.jsonl", row), purpose="batch")
        batch = door.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        deadline = time.monotonic() + TIME_LIMIT
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
            batch = door.batches.retrieve(batch.id)
        assert (batch.status, batch.request_counts and batch.request_counts.completed) == ("completed", 1)
        process.send_signal(signal.SIGINT)
        ended = finish(process)
    assert "warning: The provider 'anthropic' has no key: the environment variable ANTHROPIC_API_KEY" in ended.err
    assert "'stub'" not in ended.err


def test_the_readme_shows_the_whole_example() -> None:
    code = (ROOT / "examples" / "openai_client.py").read_text().partition('"""\n\n')[2]
    assert "from openai import OpenAI\n" in code
    assert f"```python\n{code}```\n" in (ROOT / "README.md").read_text()


def test_a_gateway_that_is_killed_in_an_upload_leaves_no_file_and_others_go_on(served: Workspace) -> None:
    with gateway(served) as (first, process), gateway(served) as (second, _):
        before = {file.id for file in client(second).files.list()}
        kept = client(first).files.create(file=b'{"custom_id": "a"}\n', purpose="batch")
        assert {file.id for file in client(second).files.list()} == {*before, kept.id}

        def body() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
            for _ in range(100):
                yield b" " * 100_000
            deadline = time.monotonic() + TIME_LIMIT
            while not [file for file in (served.folder / "store").rglob(".durabatch-*") if "~gateway" in str(file)]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.kill()
            process.wait()
            yield b" " * 10_000_000

        with pytest.raises(httpx2.TransportError):
            httpx2.post(f"{first}/files", content=body(), headers={"content-type": "multipart/form-data; boundary=x"})
        assert {file.id for file in client(second).files.list()} == {*before, kept.id}
        assert client(second).files.content(kept.id).read() == b'{"custom_id": "a"}\n'


@pytest.mark.slow
def test_a_gateway_that_is_killed_in_a_create_of_anthropics_leaves_no_batch(served: Workspace) -> None:
    version = {"anthropic-version": "2023-06-01"}
    with gateway(served, "--provider", "stub") as (first, process), gateway(served) as (second, _):

        def body() -> Iterator[bytes]:
            row = {"params": {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x" * 100_000}]}}
            yield b'{"requests":['
            for number in range(100):
                yield b"," * (number > 0) + json.dumps({"custom_id": f"r{number}", **row}).encode()
            deadline = time.monotonic() + TIME_LIMIT
            while not [file for file in (served.folder / "store").rglob(".durabatch-*") if "msgbatch_" in str(file)]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.kill()
            process.wait()
            yield b" " * 10_000_000

        with pytest.raises(httpx2.TransportError):
            httpx2.post(f"{first}/messages/batches", content=body(), headers=version)
        listed = httpx2.get(f"{second}/messages/batches", headers=version)
        assert listed.json()["data"] == []


@pytest.mark.slow
def test_a_key_that_is_made_opens_the_gateway_to_its_tenant(served: Workspace) -> None:
    made = served.call("gateway-key", "search")
    key, _, lines = made.out.partition("\n")
    assert tomllib.loads(lines)["gateway"]["keys"] == [
        {"tenant": "search", "sha256": hashlib.sha256(key.encode()).hexdigest()}
    ]
    assert "shown only now" in made.err
    assert served.call("gateway-key", "search", "--json").facts["key"] != key

    config = served.folder / "keys.toml"
    config.write_text((served.folder / "durabatch.toml").read_text() + lines)
    keyed = dataclasses.replace(served, environ={**served.environ, "DURABATCH_CONFIG": config.name})
    # With keys it may serve other machines too.
    with gateway(keyed, host="0.0.0.0") as (base_url, process):
        base_url = base_url.replace("0.0.0.0", "127.0.0.1")
        file = client(base_url, key).files.create(file=b"{}", purpose="batch")
        with pytest.raises(openai.AuthenticationError):
            client(base_url, "another").files.retrieve(file.id)
        assert (served.folder / "store" / "~gateway" / "search" / "files" / file.id / "meta.json").exists()
        process.send_signal(signal.SIGTERM)
        ended = finish(process)
        assert ended.code == 0
        assert "warning: no model has a provider" in ended.err
        assert key not in ended.out + ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gateway", "--host", "0.0.0.0"], "Without keys the gateway serves loopback only, and 0.0.0.0 is not"),
        (["gateway", "--host", "192.0.2.1"], "Without keys the gateway serves loopback only"),
        (["gateway", "--provider", "stbu"], "There is no provider 'stbu'"),
        (["gateway-key", "Search Team"], "'Search Team' cannot name a tenant"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_sentence(served: Workspace, arguments: list[str], words: str) -> None:
    refused = served.call(*arguments)
    assert (refused.code, refused.out) == (1, "")
    assert words in refused.err


@pytest.mark.slow
def test_a_port_in_use_is_told_in_a_sentence(served: Workspace) -> None:
    with gateway(served) as (base_url, _):
        port = str(httpx2.URL(base_url).port)
        refused = served.run("gateway", "--port", port)
        assert refused.code == 1
        assert f"error: The gateway cannot listen on 127.0.0.1:{port} (" in refused.err
