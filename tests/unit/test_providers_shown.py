"""How `providers` shows what is configured, and the rates in use."""

from __future__ import annotations

from pathlib import Path

from durabatch.cli.providers import facts, full, sorted_out, table
from durabatch.cli.rates import lines
from durabatch.contract.rates import RateLimits, RatesView, Shares, WorkerView
from durabatch.workers import Settings

CONFIG = """
[providers.local]
kind = "openai"
mode = "direct"
base_url = "http://127.0.0.1:11434/v1"
requests_per_minute = 1200
max_concurrent_requests = 8
[providers.hosted]
kind = "openai"
api_key_env = "THERE"
[providers.other]
kind = "openai"
api_key_env = "NOT_THERE"
"""


def test_a_server_that_needs_no_key_is_not_said_to_have_one(tmp_path: Path) -> None:
    (tmp_path / "durabatch.toml").write_text(CONFIG)
    accounts, others = sorted_out(Settings.load(tmp_path / "durabatch.toml", {"THERE": "sk-1"}), [])
    keys = {one["name"]: one["key"] for one in facts(accounts, others, None)["providers"]}
    assert (keys["local"], keys["hosted"], keys["other"]) == ("not needed", "set", "missing")
    assert "not needed" in table(accounts, others)


def test_direct_mode_is_shown_with_its_limits_and_without_those_of_batches(tmp_path: Path) -> None:
    (tmp_path / "durabatch.toml").write_text(CONFIG)
    accounts, others = sorted_out(Settings.load(tmp_path / "durabatch.toml", {}), [])
    modes = {one["name"]: one["mode"] for one in facts(accounts, others, None)["providers"]}
    assert (modes["local"], modes["hosted"]) == ("direct", "batch")
    local = next(account for account in accounts if account.settings.name == "local")
    assert full(local).splitlines()[2:] == [
        "Mode      direct",
        "Rate      1,200 requests a minute, 8 calls in flight at most",
    ]
    told = next(one for one in facts(accounts, others, None)["providers"] if one["name"] == "local")
    assert (told["requests_per_minute"], told["tokens_per_minute"], told["max_concurrent_requests"]) == (1200, None, 8)


def test_a_rate_that_nobody_uses_shows_no_use() -> None:
    idle = RatesView(model="m", limits=RateLimits(requests_per_minute=60), factor=0.5)
    assert lines(idle) == ["\nm, directly: no worker has a share of the rate."]
    worker = WorkerView(label="w", using=Shares(requests=0.5), amounts=Shares(requests=1.0))
    assert "30 of 60 requests" in lines(idle.model_copy(update={"workers": (worker,)}))[0]
