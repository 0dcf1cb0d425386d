"""Setting up an account's HTTP client: what is checked before any call, and why a server is out of reach."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from durabatch.activities.direct.answer import NoAnswer
from durabatch.activities.direct.calls import Calls
from durabatch.activities.providers import ProviderSettings, open_provider
from durabatch.activities.providers.http_client import check, reason
from durabatch.contract import ConfigurationError, ProviderUnavailable

KEY = "sk-very-secret"
Reached = Callable[[str], Awaitable[str]]


def settings(url: str = "https://far.example/v1", key: str = KEY, kind: str = "openai") -> ProviderSettings:
    return ProviderSettings(name="gpt", kind=kind, base_url=url, api_key=SecretStr(key), api_key_env="GPT_KEY")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


ENVIRONMENTS = {
    "a SOCKS proxy": ("ALL_PROXY", "socks5://me:secret@127.0.0.1:9", ("SOCKS proxy that ALL_PROXY names", "NO_PROXY")),
    "a proxy of another kind": (
        "HTTPS_PROXY",
        "ftp://me:secret@x:9",
        ("proxy that HTTPS_PROXY names", "http://host:port"),
    ),
    "a proxy that is not a URL": ("HTTPS_PROXY", "secret:word", ("proxy that HTTPS_PROXY names", "http://host:port")),
    "a certificate file that is gone": (
        "SSL_CERT_FILE",
        "/nonexistent/ca.pem",
        ("SSL_CERT_FILE (/nonexistent/ca.pem) cannot be read (No such file or directory)", "unset it"),
    ),
    "a certificate file without certificates": ("SSL_CERT_FILE", __file__, ("holds no certificate",)),
}


@pytest.mark.parametrize("trouble", ENVIRONMENTS)
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_an_environment_that_allows_no_call_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, trouble: str, kind: str
) -> None:
    variable, value, words = ENVIRONMENTS[trouble]
    check(settings(kind=kind))
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        open_provider(settings(kind=kind))
    assert all(word in caught.value.message for word in words), caught.value.message
    assert "secret" not in caught.value.message and caught.value.__cause__ is None


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://x:9", "http://127.0.0.1:9"])
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://127.9.9.9/v1", "http://[::1]:8000/v1", "http://localhost/v1"]
)
def test_loopback_needs_no_proxy_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, url: str, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    check(settings(url))


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("sk-a\u2026bcd", "character 5 of 8 is HORIZONTAL ELLIPSIS"),
        ("sk-a\nbcd", "character 5 of 8 is a line break"),
        ("sk-a bcd", "character 5 of 8 is a space"),
        ("sk-abcd\u00fc", "character 8 of 8 is LATIN SMALL LETTER U WITH DIAERESIS"),
        ("\u0441k-abcd", "character 1 of 7 is CYRILLIC SMALL LETTER ES"),
        ("sk\x00", "character 3 of 3 is U+0000"),
    ],
)
def test_a_key_that_no_header_can_hold_is_named_by_the_place_and_never_quoted(key: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(settings(key=key))
    message = caught.value.message
    assert named in message and "GPT_KEY" in message
    assert "abcd" not in message and "bcd" not in message


# --- why there is no answer ---


async def unreachable(url: str) -> str:
    provider = open_provider(settings(url))
    try:
        with pytest.raises(ProviderUnavailable) as caught:
            await provider.probe()
    finally:
        await provider.close()
    assert caught.value.status is None and "Error" not in caught.value.message
    return caught.value.message


@asynccontextmanager
async def listening(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that sends some bytes to whoever connects, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def test_nobody_who_listens_is_said_in_plain_words() -> None:
    assert "cannot be reached: connection refused, so nothing listens there" in await unreachable(
        "http://127.0.0.1:1/v1"
    )


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "(DNS) does not know its host"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "(DNS) does not answer for its host"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "there is no way to its network"),
        (
            ExceptionGroup("several addresses", [ConnectionRefusedError(), OSError(errno.EIO, "x")]),
            "connection refused",
        ),
    ],
)
def test_what_the_system_says_of_a_connection_is_said_in_plain_words(cause: Exception, words: str) -> None:
    # Made by hand: a name that is asked for in a test would be asked of somebody's network.
    error = httpx2.ConnectError("All connection attempts failed")
    error.__cause__ = cause
    assert words in reason(error, 60, httpx2.URL("https://far.example/v1"))


async def test_a_proxy_that_is_out_of_reach_is_not_taken_for_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:1")
    said = await unreachable("https://far.example/v1")
    assert "nothing listens at the proxy that HTTPS_PROXY names (connection refused); correct the variable" in said
    assert "base_url" not in said and "secret" not in said


@pytest.mark.parametrize(
    ("url", "variable", "no_proxy", "by_proxy"),
    [
        ("https://far.example/v1", "HTTPS_PROXY", "", True),
        ("https://far.example/v1", "ALL_PROXY", "", True),
        ("https://far.example/v1", "HTTP_PROXY", "", False),
        ("https://far.example/v1", "HTTPS_PROXY", "far.example", False),
        ("http://127.0.0.1:9/v1", "HTTP_PROXY", "", False),
    ],
)
def test_a_proxy_is_named_exactly_where_one_is_used(
    monkeypatch: pytest.MonkeyPatch, url: str, variable: str, no_proxy: str, by_proxy: bool
) -> None:
    monkeypatch.setenv(variable, "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    error = httpx2.ConnectError("All connection attempts failed")
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    said = reason(error, 60, httpx2.URL(url))
    assert (f"the host of the proxy that {variable} names" in said) is by_proxy, said


async def uncalled(url: str) -> str:
    """Return why direct mode, which has a client of its own, cannot call a server."""
    calls = Calls(settings(url), {})
    try:
        with pytest.raises(NoAnswer) as caught:
            await calls.post(f"{url}/chat/completions", {}, b"{}")
    finally:
        await calls.close()
    return caught.value.reason


CLIENTS = pytest.mark.parametrize("reached", [unreachable, uncalled])


@CLIENTS
async def test_an_untrusted_certificate_is_named_with_what_to_do(self_signed: ssl.SSLContext, reached: Reached) -> None:
    async with listening(b"", self_signed) as port:
        message = await reached(f"https://localhost:{port}/v1")
    assert "its certificate is not trusted (self-signed certificate)" in message and "SSL_CERT_FILE" in message


@CLIENTS
async def test_tls_at_a_plain_port_is_named(reached: Reached) -> None:
    async with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        message = await reached(f"https://127.0.0.1:{port}/v1")
    assert "does not speak TLS" in message and message.endswith("begin with http://?")


@CLIENTS
async def test_what_is_not_http_is_named(reached: Reached) -> None:
    async with listening(b"\x15\x03\x01\x00\x02\x02\x46") as port:
        message = await reached(f"http://127.0.0.1:{port}/v1")
    assert "what it sent is not HTTP" in message and message.endswith("begin with https://?")


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    unlocked = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unlocked)
    (tmp_path / "both.pem").write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    return context
