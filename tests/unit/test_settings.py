"""What durabatch.toml may say, and what is said of one that is wrong."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from durabatch.activities.providers.settings import ProviderSettings
from durabatch.contract import ConfigurationError, MissingKey, UnknownProvider
from durabatch.workers.settings import NO_KEY, Settings, is_loopback

KEY = "sk-a-key-that-must-never-be-printed"


def load(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "durabatch.toml"
    file.write_text(text)
    return Settings.load(file, environ)


def key_of(provider: ProviderSettings) -> str | None:
    return provider.api_key.get_secret_value() if provider.api_key else None


def test_without_a_file_openai_and_anthropic_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(environ={"OPENAI_API_KEY": KEY})
    assert settings.source is None
    assert sorted(settings.providers) == ["anthropic", "openai"]
    assert settings.provider("openai").url == "https://api.openai.com/v1"
    assert key_of(settings.provider("openai")) == KEY
    assert settings.store.url == str(tmp_path / "durabatch-data")


def test_the_file_of_the_current_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "durabatch.toml").write_text('[worker]\ntask_queue = "mine"\n')
    monkeypatch.chdir(tmp_path)
    assert Settings.load(environ={}).worker.task_queue == "mine"


def test_the_variable_names_another_file_and_its_folder_is_where_the_store_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "durabatch.toml").write_text('[worker]\ntask_queue = "mine"\n')
    other = tmp_path / "other" / "config.toml"
    other.parent.mkdir()
    other.write_text('[store]\nurl = "data"\n[worker]\nheartbeat = "1m"\nmax_concurrent_activities = 7\n')
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(environ={"DURABATCH_CONFIG": str(other)})
    assert settings.store.url == str(other.parent / "data")
    assert settings.worker.heartbeat == timedelta(minutes=1)
    assert settings.worker.max_concurrent_activities == 7
    assert settings.worker.task_queue == "durabatch"


def test_how_large_a_file_of_results_may_be_is_kept_beside_the_stores_place(tmp_path: Path) -> None:
    assert load(tmp_path, "").store.results_file_bytes == 4 * 1024**3
    settings = load(tmp_path, '[store]\nurl = "data"\nresults_file_bytes = 1_000\n')
    assert (settings.store.url, settings.store.results_file_bytes) == (str(tmp_path / "data"), 1000)
    assert load(tmp_path, "[store]\nresults_file_bytes = 0\n").store.results_file_bytes == 0
    assert settings.redacted()["store"]["results_file_bytes"] == 1000
    for wrong in ("-1", "68719476737", '"4 GB"'):
        with pytest.raises(ConfigurationError, match=r"store\.results_file_bytes"):
            load(tmp_path, f"[store]\nresults_file_bytes = {wrong}\n")


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "file:///srv/data", "gs://bucket", "/srv/data"])
def test_a_store_that_is_absolute_stays_as_it_is(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, f'[store]\nurl = "{url}"').store.url == url


WRONG = {
    "an unknown table": (
        "[stor]\nurl = 'x'",
        ["unknown field stor", "did you mean 'store'", "providers, store, worker"],
    ),
    "an unknown field": ("[store]\nuri = 'x'", ["unknown field store.uri", "did you mean 'url'"]),
    "an unknown field of a provider": (
        "[providers.openai]\nkind = 'openai'\nbase_uri = 'x'",
        ["unknown field providers.openai.base_uri", "did you mean 'base_url'", "max_enqueued_tokens"],
    ),
    "a wrong type": ("[worker]\nmax_concurrent_activities = 'many'", ["worker.max_concurrent_activities", "integer"]),
    "a value out of range": ("[worker]\nheartbeat = '1s'", ["worker.heartbeat", "between 2 seconds and 5 minutes"]),
    "an idle time out of range": (
        "[worker]\nembedded_idle = 0",
        ["worker.embedded_idle", "between 1 second and 7 days"],
    ),
    "no duration": ("[worker]\nheartbeat = 'soon'", ["worker.heartbeat"]),
    "an unknown kind": ("[providers.x]\nkind = 'opena'", ["providers.x.kind", "'openai'", "'anthropic'"]),
    "no kind": ("[providers.x]\nbase_url = 'http://localhost:1'", ["providers.x.kind: is missing"]),
    "no url": ("[providers.x]\nkind = 'openai'\nbase_url = 'api'", ["providers.x.base_url", "must be a URL"]),
    "a password in a url": (
        f"[providers.x]\nkind = 'openai'\nbase_url = 'https://me:{KEY}@llm.example/v1'",
        ["providers.x.base_url: cannot hold a user name or a password", "api_key_env"],
    ),
    "a user in a url": (
        f"[providers.x]\nkind = 'openai'\nbase_url = 'https://{KEY}@llm.example/v1'",
        ["providers.x.base_url: cannot hold a user name or a password"],
    ),
    "a key in a query": (
        f"[providers.x]\nkind = 'openai'\nbase_url = 'https://llm.example/v1?a=1&subscription-key={KEY}'",
        ["providers.x.base_url: cannot hold the parameter 'subscription-key'", "api_key_env"],
    ),
    "a fragment": (
        "[providers.x]\nkind = 'openai'\nbase_url = 'https://llm.example/v1#top'",
        ["providers.x.base_url: cannot hold a fragment"],
    ),
    **{
        f"the url {url}": (
            f"[providers.x]\nkind = 'openai'\nbase_url = \"{url}\"",
            ["providers.x.base_url: must be a URL"],
        )
        for url in (
            *("ftp://llm.example", "https://", "https:///v1", "llm.example/v1", "http://a b/v1", "http://x/v1\\n/y"),
            *("http://x:99999", "http://x:0", "http://x:port/v1", "http://[::1/v1", f"http://{'x' * 70}.example/v1"),
        )
    },
    "no table": ("providers = 3", ["providers must hold tables"]),
    "no table of a provider": ("[providers]\nopenai = 'x'", ["providers.openai must be a table"]),
    "a name": ("[providers.x]\nkind = 'openai'\nname = 'y'", ["providers.x.name cannot be given"]),
    "no TOML": ("[store\n", ["is no TOML"]),
    "headers that are no table": ("[providers.x]\nkind = 'openai'\nheaders = 'x'", ["providers.x.headers"]),
    "a key among the headers": (
        f"[providers.x]\nkind = 'openai'\nheaders = {{ Authorization = 'Bearer {KEY}' }}",
        ["providers.x.headers: cannot hold 'Authorization'", "does not belong in a file", "api_key_env"],
    ),
    "another key among the headers": (
        f"[providers.x]\nkind = 'anthropic'\nheaders = {{ X-Api-Key = '{KEY}' }}",
        ["cannot hold 'X-Api-Key'", "does not belong in a file"],
    ),
    "a header of the content": (
        "[providers.x]\nkind = 'openai'\nheaders = { Content-Type = 'text/plain' }",
        ["cannot hold 'Content-Type'", "every call sets it itself"],
    ),
    "a header of the connection": (
        "[providers.x]\nkind = 'openai'\nheaders = { Transfer-Encoding = 'gzip' }",
        ["cannot hold 'Transfer-Encoding'", "every call sets it itself"],
    ),
    "a header without a name": (
        "[providers.x]\nkind = 'openai'\nheaders = { 'a b' = 'x' }",
        ["cannot hold 'a b'", "letters, digits and -"],
    ),
    "a header of two lines": (
        f'[providers.x]\nkind = "openai"\nheaders = {{ x-a = "{KEY}\\r\\nx-b: c" }}',
        ["cannot hold 'x-a' with such a value"],
    ),
    "one header twice": (
        "[providers.x]\nkind = 'openai'\nheaders = { x-a = 'b', X-A = 'c' }",
        ["name one header twice"],
    ),
    "several": ("[store]\na = 1\nb = 2\nc = 3", ["and 2 more problems"]),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_in_a_sentence_that_names_the_file_and_the_field(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    message = caught.value.message
    assert str(tmp_path / "durabatch.toml") in message
    assert "\n" not in message
    assert KEY not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "line", [f"api_key = '{KEY}'", f"api_key_env = '{KEY}'"], ids=["as the key", "in the place of the variable"]
)
def test_a_key_in_the_file_is_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, f"[providers.openai]\nkind = 'openai'\n{line}")
    assert "environment variable" in caught.value.message
    assert KEY not in caught.value.message


def test_a_file_that_is_named_but_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read: No such file"):
        Settings.load(tmp_path / "nowhere.toml", {})
    with pytest.raises(ConfigurationError, match=r"\(named by DURABATCH_CONFIG\)"):
        Settings.load(environ={"DURABATCH_CONFIG": str(tmp_path / "nowhere.toml")})


def test_an_unknown_provider_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownProvider, match=r"did you mean 'openai'\?\); known are: anthropic, openai, vllm"):
        load(tmp_path, "[providers.vllm]\nkind = 'openai'\nbase_url = 'http://localhost:8000/v1'").provider("opena")


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_missing_key_is_no_error_before_its_provider_is_used(tmp_path: Path, value: str | None) -> None:
    settings = load(
        tmp_path,
        "[providers.openai]\nkind = 'openai'\napi_key_env = 'MY_KEY'",
        **({} if value is None else {"MY_KEY": value}),
    )
    with pytest.raises(MissingKey, match="environment variable MY_KEY is not set or empty"):
        settings.provider("openai")


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        pytest.param("", KEY, id="the kind's own address gets the kind's usual key"),
        pytest.param("base_url = 'https://api.openai.com/v1/'", KEY, id="also when it is written out"),
        pytest.param("base_url = 'http://127.0.0.1:8000/v1'", NO_KEY, id="a local server needs none"),
        pytest.param("base_url = 'http://localhost:8000/v1'", NO_KEY, id="by name too"),
        pytest.param(
            "base_url = 'http://localhost:8000/v1'\napi_key_env = 'OPENAI_API_KEY'", KEY, id="unless one is named"
        ),
        pytest.param(
            "base_url = 'https://llm.example.com'\napi_key_env = ''", NO_KEY, id="elsewhere, none if it says so"
        ),
        pytest.param(
            "base_url = 'https://llm.example.com'\napi_key_env = 'OTHER'", "other", id="the one that is named"
        ),
        pytest.param("base_url = 'https://llm.example.com'", None, id="never somebody else's key"),
    ],
)
def test_a_key_goes_only_where_it_was_sent(tmp_path: Path, fields: str, key: str | None) -> None:
    settings = load(tmp_path, f"[providers.p]\nkind = 'openai'\n{fields}", OPENAI_API_KEY=KEY, OTHER="other\n")
    assert key_of(settings.providers["p"]) == key
    if key is None:
        with pytest.raises(MissingKey, match=r"providers\.p\.api_key_env"):
            settings.provider("p")


def test_a_provider_can_be_redefined_and_added(tmp_path: Path) -> None:
    settings = load(tmp_path, "[providers.openai]\nkind = 'openai'\nmax_rows = 10", OPENAI_API_KEY=KEY)
    assert settings.provider("openai").max_rows == 10
    local = ProviderSettings(name="local", kind="openai", base_url="http://localhost:1", api_key=SecretStr("k"))
    assert settings.with_provider(local).provider("local") is local
    assert "local" not in settings.providers


def test_what_may_be_printed_holds_no_key(tmp_path: Path) -> None:
    settings = load(tmp_path, "[providers.openai]\nkind = 'openai'", OPENAI_API_KEY=KEY)
    shown = json.dumps(settings.redacted())
    assert KEY not in shown + repr(settings) + settings.model_dump_json()
    facts = settings.redacted()
    assert facts["providers"]["openai"]["key"] == "set"
    assert facts["providers"]["anthropic"]["key"] == "missing"


def test_a_url_that_is_refused_is_never_repeated() -> None:
    for url in (f"https://me:{KEY}@x/v1", f"https://{KEY}:99999/{KEY}", f"https://x/v1?key={KEY}", f"{KEY}://x"):
        with pytest.raises(ValidationError) as caught:
            ProviderSettings(name="p", kind="openai", base_url=url)
        assert KEY not in str(caught.value) + repr(caught.value)


def test_a_query_of_the_base_url_is_kept_apart_and_is_no_part_of_the_account() -> None:
    def made(url: str) -> ProviderSettings:
        return ProviderSettings(name="p", kind="openai", base_url=url, api_key=SecretStr(KEY))

    plain, dated = made("https://az.example/openai/v1/"), made(" https://az.example/openai/v1/?api-version=1&x= ")
    assert plain.url == dated.url == "https://az.example/openai/v1"
    assert (plain.query, dated.query) == ((), (("api-version", "1"), ("x", "")))
    assert plain.fingerprint == dated.fingerprint == made("https://az.example/openai/v1?api-version=2").fingerprint


def test_headers_are_shown_by_their_names_only(tmp_path: Path) -> None:
    text = '[providers.openai]\nkind = "openai"\nheaders = { "x-team" = "a-secret", anthropic-beta = "b" }'
    settings = load(tmp_path, text, OPENAI_API_KEY=KEY)
    assert settings.provider("openai").headers == {"x-team": "a-secret", "anthropic-beta": "b"}
    assert settings.redacted()["providers"]["openai"]["headers"] == ["anthropic-beta", "x-team"]
    assert "a-secret" not in json.dumps(settings.redacted())
    assert "headers" not in settings.redacted()["providers"]["anthropic"]


def test_another_project_is_another_account_and_any_other_header_is_not() -> None:
    def account(name: str | None = None, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ProviderSettings(
            name="p", kind="openai", api_key=SecretStr(KEY), headers=named, account=name
        ).fingerprint

    assert account() == account(x_team="a")
    assert (
        len({account(), account(OpenAI_Project="a"), account(OpenAI_Project="b"), account(OpenAI_Organization="a")})
        == 4
    )
    assert account(OpenAI_Project="a") == account(openai_project="a")
    assert account("mine", OpenAI_Project="a") == account("mine")


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8000", True),
        ("http://localhost", True),
        ("http://gpu.localhost", True),
        ("https://api.openai.com/v1", False),
        ("http://10.0.0.1", False),
        ("http://localhost.example.com", False),
    ],
)
def test_loopback_is_told_from_the_rest(url: str, local: bool) -> None:
    assert is_loopback(url) is local
