"""A store that is a bucket: moto speaks S3 over real HTTP."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import httpx2
import pytest
from moto.server import ThreadedMotoServer


@contextlib.contextmanager
def open_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make a bucket, and the environment that leads to it; yield a store's URL in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    name = f"bucket-{secrets.token_hex(6)}"
    httpx2.put(f"http://{host}:{port}/{name}").raise_for_status()
    try:
        yield f"s3://{name}/prefix"
    finally:
        server.stop()
