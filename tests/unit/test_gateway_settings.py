"""`[gateway]` in durabatch.toml, and whose a key is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from durabatch.contract import ConfigurationError
from durabatch.gateway.tenants import Tenants
from durabatch.workers.settings import Settings

DIGEST = hashlib.sha256(b"the key").hexdigest()
KEY = f'[[gateway.keys]]\ntenant = "search"\nsha256 = "{DIGEST}"\n'


def load(folder: Path, text: str) -> Settings:
    file = folder / "durabatch.toml"
    file.write_text(text)
    return Settings.load(file, {})


def test_a_gateway_that_is_not_configured_needs_no_key(tmp_path: Path) -> None:
    gateway = load(tmp_path, "").gateway
    assert (gateway.max_file_bytes, gateway.uploads, gateway.completion_windows) == (512 * 1024**2, 8, ("24h",))
    tenants = Tenants(gateway)
    assert tenants.open
    for key in (None, "", "any"):
        assert (found := tenants.of(key)) is not None
        assert found.name == "default"


def test_a_key_is_its_tenants_and_no_other_is_anybodys(tmp_path: Path) -> None:
    gateway = load(tmp_path, KEY.replace(DIGEST, DIGEST.upper())).gateway
    tenants = Tenants(gateway)
    assert (found := tenants.of("the key")) is not None
    assert (found.name, found.models) == ("search", ())
    for key in (None, "", "the key ", "The key", DIGEST, "\udcff"):
        assert tenants.of(key) is None


def test_limits_of_a_key_come_before_those_of_all_keys(tmp_path: Path) -> None:
    all_keys = "[gateway]\nmax_rows = 10\nmax_batches = 3\nmax_batches_in_all = 9\nmax_file_bytes = 500\n"
    own = "max_rows = 20\nmax_cost_usd_per_day = 1.50\nmax_file_bytes = 700\nmax_stored_bytes = 1000\n"
    gateway = load(tmp_path, f"{all_keys}{KEY}{own}").gateway
    found = Tenants(gateway).of("the key")
    assert found is not None and (found.max_file_bytes, found.max_stored_bytes) == (700, 1000)
    limits = found.limits
    assert (limits.max_rows, limits.max_batches, limits.max_batches_in_all) == (20, 3, 9)
    assert limits.max_cost_usd_per_day == "1.5"
    anybody = Tenants(load(tmp_path, all_keys).gateway).of(None)
    assert anybody is not None and (anybody.limits.max_rows, anybody.max_file_bytes) == (10, 500)


def test_what_is_printed_of_a_gateway_holds_no_digest(tmp_path: Path) -> None:
    shown = load(tmp_path, f'{KEY}[[gateway.routes]]\nmodel = "gpt-*"\nprovider = "openai"\n').redacted()
    (key,) = shown["gateway"]["keys"]
    assert (key["tenant"], key["models"]) == ("search", [])
    assert shown["gateway"]["routes"] == [{"model": "gpt-*", "provider": "openai"}]
    assert DIGEST not in json.dumps(shown)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gateway]\nkeyz = 1\n", "unknown field gateway.keyz (did you mean 'keys'?)"),
        ("[gateway]\nuploads = 0\n", "gateway.uploads: Input should be greater than or equal to 1"),
        ("[gateway]\ncompletion_windows = []\n", "gateway.completion_windows"),
        ('[gateway]\ncompletion_windows = ["24h", "1 day"]\n', "gateway.completion_windows: must be hours or days"),
        ('[gateway]\nkeep_batches = "-1d"\n', "gateway.keep_batches: must not be negative"),
        (f"{KEY}modles = []", "unknown field gateway.keys.0.modles (did you mean 'models'?)"),
        (KEY.replace("search", "Search"), "gateway.keys.0.tenant: must begin with a small letter or digit"),
        (KEY.replace("search", "~due"), "gateway.keys.0.tenant: must begin with a small letter or digit"),
        (KEY.replace(DIGEST, "the key"), "gateway.keys.0.sha256: must be the 64 hexadecimal digits of a SHA-256"),
        (KEY + KEY.replace("search", "ads"), "gateway.keys: must be different keys: the same sha256 is there twice"),
        (
            f"{KEY}max_batches = 1\n{KEY.replace(DIGEST, 'a' * 64)}max_batches = 2\n",
            "gateway.keys: must agree for each tenant on max_batches, max_stored_bytes and max_cost_usd_per_day",
        ),
        ("[gateway]\nmax_batches = 1000\n", "gateway.max_batches: Input should be less than or equal to 100"),
        ('[[gateway.routes]]\nmodel = "m"\n', "gateway.routes.0.provider: is missing"),
        (
            '[[gateway.routes]]\nmodel = "gpt-*"\nprovider = "opanai"\n',
            "gateway.routes sends 'gpt-*' to 'opanai', and there is no such provider (did you mean 'openai'?)",
        ),
    ],
)
def test_a_wrong_gateway_is_told_by_field_and_never_with_a_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        load(tmp_path, text)
    assert words in wrong.value.message
    assert "the key" not in wrong.value.message
