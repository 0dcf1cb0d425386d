"""The `durabatch` command as its users run it: real processes, an embedded Temporal, the sandbox over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from durabatch.sandbox import SandboxAdmin
from durabatch.workers.embedded import temporal_server

KEY = "sk-the-key-that-must-never-be-printed"
SUBCOMMANDS = (
    *("run", "submit", "status", "watch", "results", "list", "cancel", "gc"),
    *("worker", "dev", "sandbox", "providers", "doctor"),
)
#: Longer than anything here may take; a test that needs it has failed.
PATIENCE = 60


@dataclass
class Ended:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> Any:
        return json.loads(self.out)


@dataclass
class Place:
    """A folder with a configuration, in which commands are run."""

    folder: Path
    admin: SandboxAdmin
    environ: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TEMPORAL_", "DURABATCH_", "OPENAI_", "ANTHROPIC_", "COV_"))
        }
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "durabatch", *arguments],
            cwd=self.folder,
            env={**kept, "TEMPORAL_CONFIG_FILE": str(self.folder / "no.toml"), "KEY": KEY, **self.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, input: str = "", **environ: str) -> Ended:
        """Run a command to its end. Whatever it does, it prints no traceback and no key."""
        process = self.start(*arguments, **environ)
        out, err = process.communicate(input, timeout=PATIENCE)
        assert "Traceback" not in err, err
        assert KEY not in out + err
        return Ended(process.returncode, out, err)

    def run_all(self, commands: list[list[str]]) -> list[Ended]:
        """Run several commands, some at a time."""
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(lambda arguments: self.run(*arguments), commands))

    def rows(self, *prompts: str, name: str = "rows.jsonl") -> str:
        lines = [json.dumps({"custom_id": f"r{number}", "input": prompt}) for number, prompt in enumerate(prompts)]
        (self.folder / name).write_text("\n".join(lines) + "\n")
        return name

    def bought(self) -> list[str]:
        """The ids of every provider batch there ever was."""
        return [batch["id"] for batch in asyncio.run(self.admin.books())["batches"]]

    def provider(self, **settings: Any) -> None:
        asyncio.run(self.admin.settings(**settings))

    def until_bought(self, more_than: int) -> None:
        """Wait until the provider has another batch."""
        give_up = time.monotonic() + PATIENCE
        while len(self.bought()) <= more_than:
            assert time.monotonic() < give_up, "nothing was submitted"
            time.sleep(0.05)


@contextlib.contextmanager
def place(folder: Path) -> Iterator[Place]:
    """A folder whose provider `stub` is a sandbox of its own."""
    command = [sys.executable, "-m", "durabatch.sandbox", "--state", str(folder / "provider")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        try:
            url = json.loads(sandbox.stdout.readline())["url"]
            (folder / "durabatch.toml").write_text(
                '[store]\nurl = "store"\n[worker]\nheartbeat = "2s"\n'
                f'[providers.stub]\nkind = "openai"\nbase_url = "{url}/v1"\napi_key_env = "KEY"\nlisting_lag = "1s"\n'
            )
            yield Place(folder, SandboxAdmin(url))
        finally:
            sandbox.terminate()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Place]:
    """A folder in which nothing runs."""
    with place(tmp_path) as here:
        yield here


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder in which `durabatch dev` runs, so that commands need not start a Temporal each."""
    with place(tmp_path_factory.mktemp("house")) as here:
        dev = here.start("dev", "--json")
        assert dev.stdout is not None
        try:
            shown = "".join(iter(dev.stdout.readline, "}\n")) + "}"
            assert json.loads(shown)["ui_url"].startswith("http://127.0.0.1:")
            yield here
        finally:
            dev.send_signal(signal.SIGINT)
            _, err = dev.communicate(timeout=PATIENCE)
        assert dev.returncode == 0, err
        assert not temporal_server(here.folder / ".durabatch").alive()


@pytest.fixture
def desk(house: Place) -> Iterator[Place]:
    """The house, with its provider as fast as it can be."""
    house.provider(batch_seconds=0)
    yield house
    house.provider(batch_seconds=0)


COMMON = ("--provider", "stub", "--model", "gpt-4o-mini")


def results(text: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in text.splitlines()]
    return [(row["custom_id"], row["status"]) for row in rows]


def test_a_run_without_anything_gives_its_result_and_a_second_one_buys_nothing(tmp_path: Path) -> None:
    here = Place(tmp_path, SandboxAdmin(""))
    rows = here.rows("Say hi.")
    # No configuration, no Temporal, no provider: the stand-in answers.
    first = here.run("run", rows, "--provider", "sandbox", "--model", "gpt-4o-mini", "--json", "-o", "copy.jsonl")
    assert first.code == 0, first.err
    assert "Web UI is at http://127.0.0.1:" in first.err
    assert "costs nothing" in first.err
    assert first.facts["status"] == "completed"
    assert results((tmp_path / "copy.jsonl").read_text()) == [("r0", "succeeded")]
    again = here.run("run", rows, "--provider", "sandbox", "--model", "gpt-4o-mini", "--json")
    assert again.code == 0
    assert "has ended already; nothing is submitted again" in again.err
    assert {**again.facts, "output": first.facts["output"]} == first.facts
    assert not temporal_server(tmp_path / ".durabatch").alive()
    # Batches that are there can be looked at, though nothing runs here any more.
    shown = here.run("results", first.facts["batch_id"], "--format", "text")
    assert shown.out.startswith("r0\tYou said: Say hi.")


def test_what_a_killed_run_left_running_is_stopped_on_request(alone: Place) -> None:
    nothing = alone.run("dev", "--stop")
    assert (nothing.code, nothing.out) == (
        0,
        "No embedded Temporal runs in this folder, so there is nothing to stop.\n",
    )
    killed = alone.start(
        "run", alone.rows("one"), "--provider", "sandbox", "--model", "gpt-4o-mini", "--poll-first", "5m"
    )
    record = alone.folder / ".durabatch/sandbox.json"
    while not (record.exists() and json.loads(record.read_text())["ready"]):
        assert killed.poll() is None
        time.sleep(0.05)
    in_use = alone.run("dev", "--stop")
    assert in_use.code == 1
    assert "is in use by another command: end that one first" in in_use.err
    # Who looks sees the stand-in provider for as long as it runs here.
    checks = {check["name"]: check["level"] for check in alone.run("doctor", "--json").facts["checks"]}
    assert checks["provider sandbox"] == "ok"
    cleared = alone.run("gc", "--provider", "sandbox", "--json")
    assert (cleared.code, cleared.facts["failures"]) == (0, {}), cleared.err
    killed.kill()
    killed.communicate()
    assert alone.run("dev", "--stop", "--json").facts == {"stopped": ["temporal", "sandbox"]}
    assert alone.run("dev", "--stop", "--json").facts == {"stopped": []}
    assert "provider sandbox" not in alone.run("doctor").out
    assert not temporal_server(alone.folder / ".durabatch").alive()


def test_what_a_killed_run_left_running_ends_by_itself_and_the_run_goes_on_when_it_is_given_again(alone: Place) -> None:
    config = alone.folder / "durabatch.toml"
    config.write_text(config.read_text().replace("[worker]", '[worker]\nembedded_idle = "1s"'))
    alone.provider(batch_seconds=3600)
    rows = alone.rows("one", "two")
    killed = alone.start("run", rows, *COMMON)
    alone.until_bought(0)
    killed.kill()
    killed.communicate()
    while temporal_server(alone.folder / ".durabatch").alive():
        time.sleep(0.1)
    alone.provider(batch_seconds=0)
    again = alone.run("run", rows, *COMMON, "--json")
    assert (again.code, again.facts["counts"]["succeeded"]) == (0, 2), again.err
    assert len(alone.bought()) == 1


def test_a_killed_run_goes_on_where_it_was_when_it_is_given_again(alone: Place) -> None:
    alone.provider(batch_seconds=3600)
    rows = alone.rows("one", "two", "three")
    killed = alone.start("run", rows, *COMMON)
    alone.until_bought(0)
    killed.kill()
    killed.communicate()
    alone.provider(batch_seconds=0)
    again = alone.run("run", rows, *COMMON, "--json")
    assert again.code == 0, again.err
    assert "goes on" in again.err
    assert again.facts["counts"]["succeeded"] == 3
    assert len(alone.bought()) == 1
    # The provider is asked nothing any more, and its key is not needed for what is there.
    asyncio.run(alone.admin.revoke(KEY))
    assert alone.run("run", rows, *COMMON).code == 0
    assert alone.run("run", rows, *COMMON, KEY="").code == 0
    other = alone.run("run", alone.rows("four", name="other.jsonl"), *COMMON, KEY="")
    assert (other.code, other.out) == (1, "")
    assert "The provider 'stub' has no key: the environment variable KEY is not set or empty." in other.err
    assert len(alone.bought()) == 1


def test_ctrl_c_leaves_the_batch_and_says_how_to_go_on(alone: Place) -> None:
    alone.provider(batch_seconds=3600)
    process = alone.start("run", alone.rows("one"), *COMMON, "--id", "left-alone")
    alone.until_bought(0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert "Left the batch left-alone; it is kept: give the same command again to go on" in err
    assert "`durabatch cancel left-alone` ends it" in err
    assert not temporal_server(alone.folder / ".durabatch").alive()


def test_a_run_prints_what_it_came_to(desk: Place) -> None:
    rows = desk.rows("one", "two [[sandbox:invalid_request]]", "three", name="mixed.jsonl")
    ended = desk.run("run", rows, *COMMON, "--id", "mixed", "--label", "team=a", "--param", "temperature=0.5")
    assert ended.code == 3, ended.err
    for words in ("mixed", "completed", "3: 2 succeeded, 1 failed", "Tokens", "Cost", "without the batch discount"):
        assert words in ended.out
    assert "durabatch results mixed --errors" in ended.out
    assert str(desk.folder / "store" / "mixed" / "results.jsonl") in ended.out
    # Nobody looks at stderr, so it tells changes only, a line each.
    lines = ended.err.splitlines()
    assert len(lines) == len(set(lines))
    shown = desk.run("results", "mixed")
    assert results(shown.out) == [("r0", "succeeded"), ("r1", "failed"), ("r2", "succeeded")]
    assert results(desk.run("results", "mixed", "--errors").out) == [("r1", "failed")]
    copied = desk.run("results", "mixed", "--output", "copied.jsonl")
    assert (copied.code, (desk.folder / "copied.jsonl").read_text()) == (0, shown.out)
    facts = desk.run("status", "mixed", "--json").facts
    assert facts["result"]["metadata"] == {"team": "a"}
    assert "2 succeeded, 1 failed" in desk.run("status", "mixed").out
    assert desk.run("watch", "mixed").code == 3


def test_requests_may_come_from_stdin(desk: Place) -> None:
    line = json.dumps({"custom_id": "x", "input": "from a pipe"})
    ended = desk.run("run", "-", *COMMON, "--json", input=line)
    assert (ended.code, ended.facts["counts"]["succeeded"]) == (0, 1), ended.err


def test_submit_watch_list_and_cancel(desk: Place) -> None:
    desk.provider(batch_seconds=3600)
    before = len(desk.bought())
    id = desk.run("submit", desk.rows("a", "b", name="slow.jsonl"), *COMMON, "--poll-first", "0.2s").out.strip()
    assert id.startswith("slow-")
    desk.until_bought(before)
    early = desk.run("results", id)
    assert (early.code, early.out) == (1, "")
    assert f"error: The batch '{id}' has not ended yet" in early.err
    assert "hint: " in early.err
    listed = desk.run("list", "--json", "--status", "running").facts["batches"]
    assert [(batch["batch_id"], batch["provider"]) for batch in listed] == [(id, "stub")]
    assert id in desk.run("list").out
    watching = desk.start("watch", id, "--json")
    asked = desk.run("cancel", id, "--reason", "wrong prompt", "--by", "me", "--json")
    assert asked.facts == {"batch_id": id, "cancel_requested": True}
    out, _ = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 4
    result = json.loads(out)
    assert (result["status"], result["cancel_reason"], result["canceled_by"]) == ("canceled", "wrong prompt", "me")
    assert desk.run("cancel", id).out == f"Batch {id} has ended already.\n"


def test_bad_rows_are_told_with_their_lines_and_nothing_is_submitted(desk: Place) -> None:
    before = desk.bought()
    good = '{"custom_id":"a","input":"x"}'
    lines = [good, "no json", '{"input":"x"}', good, *['{"custom_id":"a"}'] * 30]
    (desk.folder / "bad.jsonl").write_text("\n".join(lines))
    ended = desk.run("run", "bad.jsonl", *COMMON)
    assert ended.code == 1
    assert ended.out == ""
    told = ended.err.splitlines()
    first = told.index("error: 33 rows of 34 cannot be sent, and nothing was submitted.")
    assert told[first + 1].startswith("  line 2: is not JSON")
    assert told[first + 2] == "  line 3, custom_id: is missing"
    assert told[first + 3] == "  line 4, custom_id: is the same as on line 1"
    assert told[first + 21] == "  … and 13 more"
    assert told[first + 22].startswith("hint: correct these lines; --skip-invalid")
    assert desk.bought() == before
    skipped = desk.run("run", "bad.jsonl", *COMMON, "--skip-invalid", "--json")
    assert skipped.code == 3
    assert skipped.facts["counts"] == {"total": 34, "succeeded": 1, "failed": 33, "canceled": 0, "expired": 0}


ROW = '{"custom_id":"a","input":"x"}'
BAD_ROWS = {
    "an endpoint that the row contradicts": (
        '{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"input":"x","model":"m"}}',
        "line 1, url",
    ),
    "a stream": ('{"custom_id":"a","body":{"messages":[],"stream":true}}', "line 1, body.stream"),
    "a row that is no object": ("7", "line 1: is not a JSON object"),
    "nothing but blank lines": ("\n \n", "is empty"),
}


def test_every_kind_of_bad_row_is_told(desk: Place) -> None:
    before = desk.bought()
    for number, (text, _) in enumerate(BAD_ROWS.values()):
        (desk.folder / f"row-{number}.jsonl").write_text(text + "\n")
    ended = desk.run_all([["run", f"row-{number}.jsonl", *COMMON] for number in range(len(BAD_ROWS))])
    for (name, (_, word)), one in zip(BAD_ROWS.items(), ended, strict=True):
        assert one.code == 1, name
        assert word in one.err, name
    # What every row lacks, the command lacks.
    assert "hint: give the rows' endpoint by --endpoint; a batch asks one endpoint." in ended[0].err
    assert desk.bought() == before


BAD = {
    "a missing file": (["run", "nowhere.jsonl", *COMMON], "There is no file nowhere.jsonl."),
    "an empty file": (["run", "empty.jsonl", *COMMON], "The file empty.jsonl is empty"),
    "an empty stdin": (["run", "-", *COMMON], "is empty"),
    "a folder with other files": (["run", ".", *COMMON], "whose name is not that of a JSONL file"),
    "an empty folder": (["run", "hollow", *COMMON], "The folder hollow is empty"),
    "a pattern that matches nothing": (["run", "*.none", *COMMON], "No file matches *.none"),
    "an unknown provider": (["run", "row.jsonl", "--provider", "stubb"], "did you mean 'stub'?); known are:"),
    "a missing key": (["run", "row.jsonl", "--provider", "openai"], "the environment variable OPENAI_API_KEY"),
    "an id that is no id": (["run", "row.jsonl", *COMMON, "--id", "a/b"], "The batch id 'a/b' cannot be used"),
    "no duration": (["run", "row.jsonl", *COMMON, "--deadline", "soon"], "deadline: must be a duration"),
    "no such turn": (
        ["run", "row.jsonl", *COMMON, "--priority", "9"],
        "priority: Input should be less than or equal to 5",
    ),
    "no turn": (
        ["submit", "row.jsonl", *COMMON, "--priority", "0"],
        "priority: Input should be greater than or equal to",
    ),
    "an empty key": (
        ["run", "row.jsonl", *COMMON, "--fairness-key", ""],
        "fairness_key: String should have at least 1",
    ),
    "a long key": (["submit", "row.jsonl", *COMMON, "--fairness-key", "k" * 65], "fairness_key: String should have at"),
    "a model that no row names": (["run", "row.jsonl", "--provider", "stub"], "1 row of 1 cannot be sent"),
    "an input elsewhere": (["run", "s3://other/rows.jsonl", *COMMON], "is outside the store"),
    "an unknown batch": (["status", "nobody-knows"], "There is no batch 'nobody-knows'"),
    "an unknown batch's results": (["results", "nobody-knows"], "There is no batch 'nobody-knows'"),
    "an unknown batch's cancel": (["cancel", "nobody-knows"], "There is no batch 'nobody-knows'"),
    "an unknown batch's watch": (["watch", "nobody-knows"], "There is no batch 'nobody-knows'"),
    "a configuration that is missing": (["--config", "none.toml", "list"], "cannot be read: No such file"),
    "a configuration with an unknown field": (["--config", "wrong.toml", "list"], "unknown field store.uri (did you"),
    "a configuration that is no TOML": (["--config", "row.jsonl", "list"], "is no TOML"),
}


def test_what_is_wrong_is_told_in_a_sentence_and_nothing_is_submitted(desk: Place) -> None:
    before = desk.bought()
    (desk.folder / "row.jsonl").write_text(ROW)
    (desk.folder / "empty.jsonl").write_text("")
    (desk.folder / "hollow").mkdir()
    (desk.folder / "wrong.toml").write_text('[store]\nuri = "x"\n')
    ended = desk.run_all([arguments for arguments, _ in BAD.values()])
    for (name, (_, words)), one in zip(BAD.items(), ended, strict=True):
        assert (one.code, one.out) == (1, ""), name
        errors = [line for line in one.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and words in errors[0], name
        if name == "a model that no row names":
            assert "hint: give the model of all rows that name none by --model." in one.err
    assert desk.bought() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["run"],
        ["run", "x", *COMMON, "--param", "x"],
        ["run", "x", *COMMON, "--priority", "first"],
        ["list", "--limit", "0"],
    ],
)
def test_a_wrong_command_line_is_told_with_its_usage(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "x").write_text(ROW)
    ended = Place(tmp_path, SandboxAdmin("")).run(*arguments)
    assert ended.code == 2
    assert "Usage:" in ended.err


def test_whose_turn_is_first_can_be_given(desk: Place) -> None:
    rows = desk.rows("Whose turn is it?", name="turn.jsonl")
    for subcommand in ("run", "submit"):
        given = (*COMMON, "--id", f"turn-{subcommand}", "--priority", "1", "--fairness-key", "tenant-a")
        ended = desk.run(subcommand, rows, *given)
        assert ended.code == 0, ended.err
    assert desk.run("watch", "turn-submit").code == 0


def test_without_a_temporal_it_is_told_how_to_get_one(tmp_path: Path) -> None:
    here = Place(tmp_path, SandboxAdmin(""))
    for arguments in (["list"], ["status", "x"], ["submit", here.rows("x"), "--provider", "openai"]):
        ended = here.run(*arguments)
        assert ended.code == 1
        assert "set TEMPORAL_ADDRESS, or start one here with `durabatch dev`" in ended.err
    away = here.run("list", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert away.code == 1
    assert "Temporal at 127.0.0.1:1 cannot be reached (connection refused)" in away.err
    other = here.run("dev", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert other.code == 1
    assert "A Temporal is configured, and `durabatch dev` would run another one" in other.err
    assert not (tmp_path / ".durabatch").exists()


def test_a_worker_serves_a_configured_temporal_until_it_is_told_to_stop(alone: Place) -> None:
    server = alone.start("dev", "--json")
    assert server.stdout is not None
    address = json.loads("".join(iter(server.stdout.readline, "}\n")) + "}")["address"]
    queue = "a-queue-of-its-own"
    config = alone.folder / "durabatch.toml"
    config.write_text(config.read_text().replace("[worker]", f'[worker]\ntask_queue = "{queue}"'))
    configured = Place(alone.folder, alone.admin, {"TEMPORAL_ADDRESS": address})
    submitted = configured.run("submit", configured.rows("x"), *COMMON, "--id", "remote", "--poll-first", "0.2s")
    assert submitted.out == "remote\n"
    assert f"No worker polls task queue '{queue}'" in submitted.err
    assert "no worker answers on task queue" in configured.run("status", "remote", "--json").facts["waiting_for"]
    worker = configured.start("worker")
    assert configured.run("watch", "remote").code == 0
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0, err
    assert '"key": "set"' in err and KEY not in err
    assert "Stopping." in err
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=PATIENCE)
    assert server.returncode == 0


def test_doctor_finds_everything_in_order(desk: Place) -> None:
    ended = desk.run("doctor", "--json")
    assert ended.code == 0, ended.out
    levels = {check["name"]: check["level"] for check in ended.facts["checks"]}
    for name in ("configuration", "temporal", "worker", "store", "key of stub", "provider stub", "clock"):
        assert levels[name] == "ok"
    assert "key of openai" in levels
    assert "ok    store" in desk.run("doctor").out


def test_doctor_says_what_is_wrong_and_how_to_mend_it(alone: Place) -> None:
    asyncio.run(alone.admin.revoke(KEY))
    config = alone.folder / "durabatch.toml"
    (alone.folder / "file").write_text("")
    text = config.read_text().replace('url = "store"', 'url = "file/store"')
    config.write_text(
        text + '[providers.dead]\nkind = "openai"\nbase_url = "http://127.0.0.1:1"\n'
        '[providers.keyless]\nkind = "openai"\napi_key_env = "NOBODY_SET_THIS"\n'
    )
    ended = alone.run("doctor", "--json", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert ended.code == 1
    assert ended.facts["ok"] is False
    failed = {check["name"]: check for check in ended.facts["checks"] if check["level"] == "fail"}
    assert set(failed) == {"temporal", "store", "key of keyless", "provider dead", "provider stub"}
    assert "refuses the key (401): Incorrect API key provided" in failed["provider stub"]["fact"]
    assert "KEY" in failed["provider stub"]["mend"]
    assert "NOBODY_SET_THIS" in failed["key of keyless"]["fact"]
    config.write_text("[stor]\n")
    broken = alone.run("doctor")
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
def test_an_environment_in_which_no_call_can_be_made_is_named_at_once(alone: Place, trouble: str) -> None:
    environ, words = ENVIRONMENTS[trouble]
    config = alone.folder / "durabatch.toml"
    far = '[providers.far]\nkind = "openai"\nbase_url = "https://far.invalid/v1"\napi_key_env = "FAR_KEY"\n'
    config.write_text(config.read_text() + far)
    environ = {"FAR_KEY": "sk-secret", **environ}
    ended = alone.run("run", alone.rows("a"), "--provider", "far", "--model", "gpt-4o-mini", **environ)
    assert ended.code == 1 and not (alone.folder / ".durabatch" / "temporal.db").exists()
    checked = {one["name"]: one for one in alone.run("doctor", "--json", **environ).facts["checks"]}
    for said in (ended.err, checked["provider far"]["fact"]):
        assert all(word in said for word in words), said
        assert "secret" not in said
    assert checked["provider far"]["level"] == "fail"


def test_loopback_is_never_reached_by_a_proxy(alone: Place) -> None:
    nowhere = {name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")}
    ended = alone.run("run", alone.rows("a"), *COMMON, **nowhere, NO_PROXY="", no_proxy="")
    assert ended.code == 0, ended.err


def test_doctor_says_what_is_wrong_with_a_base_url(alone: Place) -> None:
    config = alone.folder / "durabatch.toml"
    url = alone.admin.url
    text = config.read_text()
    config.write_text(
        text
        + f'[providers.short]\nkind = "openai"\nbase_url = "{url}/?api-version=1"\napi_key_env = "KEY"\n'
        + f'[providers.long]\nkind = "anthropic"\nbase_url = "{url}/v1"\napi_key_env = "KEY"\n'
        + f'[providers.tls]\nkind = "openai"\nbase_url = "{url.replace("http:", "https:")}/v1"\napi_key_env = "KEY"\n'
        + '[providers.nobody]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\napi_key_env = "KEY"\n'
        + f'[providers.right]\nkind = "openai"\nbase_url = "{url}/v1/?api-version=1"\napi_key_env = "KEY"\n'
    )
    found = {one["name"]: one for one in alone.run("doctor", "--json").facts["checks"]}
    assert found["provider right"]["level"] == "ok"
    assert found["provider short"]["level"] == found["provider long"]["level"] == "fail"
    assert f'base_url = "{url}/v1?api-version=1"' in found["provider short"]["mend"]
    assert f'base_url = "{url}"' in found["provider long"]["mend"]
    assert "does not speak TLS" in found["provider tls"]["fact"] and "http://?" in found["provider tls"]["fact"]
    assert "connection refused" in found["provider nobody"]["fact"]
    asyncio.run(alone.admin.fault("models", "override", body="<title>Sign in</title><html>", media="text/html"))
    asyncio.run(alone.admin.fault("models", "override", body="<html><title>Sign in</title>", media="text/html"))
    found = {one["name"]: one for one in alone.run("doctor", "--json").facts["checks"]}
    assert found["provider stub"]["level"] == "fail"
    assert "GET /models with a body that Durabatch cannot read" in found["provider stub"]["fact"]
    # A word of a base_url may be a password, so none of a refused one is repeated.
    config.write_text(
        text
        + f'[providers.bad]\nkind = "openai"\nbase_url = "{url.replace("//", "//me:{KEY}@")}"\n'.replace("{KEY}", KEY)
    )
    for arguments in (["doctor"], ["providers", "--json"], ["run", alone.rows("a"), "--provider", "bad"]):
        refused = alone.run(*arguments)  # looks for the key in all that is said
        assert refused.code == 1 and "cannot hold a user name or a password" in refused.out + refused.err


def test_gc_shows_first_and_removes_when_it_is_told_to(desk: Place) -> None:
    id = "to-be-cleared"
    assert desk.run("run", desk.rows("x", name="cleared.jsonl"), *COMMON, "--id", id).code == 0
    folder = desk.folder / "store" / id
    before = sorted(folder.rglob("*"))
    young = desk.run("gc")
    assert (young.code, young.out.count("their batch has ended lately")) == (0, 1), young.err
    assert "There is nothing to remove." in young.out
    shown = desk.run("gc", "--older-than", "0s", "--json").facts
    assert (shown["deleted"], shown["removed"], shown["failures"]) == (False, None, {})
    (group,) = [group for group in shown["removable"] if id in group["batches"]]
    assert group["place"] == "store" and group["count"] > 5 and group["bytes"] > 0
    assert "Would be removed (with --delete):" in desk.run("gc", "--older-than", "0s").out
    assert sorted(folder.rglob("*")) == before
    ended = desk.run("gc", "--older-than", "0s", "--delete", "--provider", "stub")
    assert (ended.code, "Removed " in ended.out) == (0, True), ended.err
    assert ended.out.startswith("Removed:\n") and "To be removed" not in ended.out
    # Of the shard only the note stays that something was bought: it keeps the batch from being bought again.
    left = ["errors.jsonl", "intent", "plan.json", "result.json", "results.jsonl"]
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == left
    assert results(desk.run("results", id).out) == [("r0", "succeeded")]
    # The same batch again is still there.
    assert "has ended already" in desk.run("run", "cleared.jsonl", *COMMON, "--id", id).err
    again = desk.run("gc", "--older-than", "0s", "--delete", "--results")
    assert (again.code, folder.exists()) == (0, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--older-than", "soon"], "must be a duration"),
        (["--older-than", "-1d"], "must be a duration"),
        (["--cancel-orphans"], "needs --delete"),
    ],
)
def test_a_wrong_gc_is_told_with_its_usage(tmp_path: Path, arguments: list[str], words: str) -> None:
    ended = Place(tmp_path, SandboxAdmin("")).run("gc", *arguments)
    assert ended.code == 2
    assert words in " ".join(ended.err.split())


def test_gc_names_the_providers_that_nobody_asked_for_want_of_a_key(desk: Place) -> None:
    ended = desk.run("gc")
    told = "The provider 'anthropic' has no key: the environment variable ANTHROPIC_API_KEY is not set or empty."
    assert (ended.code, f"Not asked: {told}\n" in ended.out) == (0, True), ended.err
    assert "'stub'" not in ended.out
    shown = desk.run("gc", "--json").facts
    assert (sorted(shown["not_asked"]), shown["failures"]) == (["anthropic", "openai"], {})
    assert shown["not_asked"]["anthropic"] == told
    # Who names one provider knows that no other is asked; and one that has no key is an error then.
    assert desk.run("gc", "--json", "--provider", "stub").facts["not_asked"] == {}
    keyless = desk.run("gc", "--provider", "anthropic")
    assert (keyless.code, keyless.out, f"error: {told}\n" in keyless.err) == (1, "", True)


def test_gc_says_which_provider_could_not_be_asked(desk: Place) -> None:
    away = (desk.folder / "durabatch.toml").read_text()
    (desk.folder / "away.toml").write_text(
        f'{away}[providers.dead]\nkind = "openai"\nbase_url = "http://127.0.0.1:1"\n'
    )
    ended = desk.run("--config", "away.toml", "gc")
    assert ended.code == 1
    assert "error: Provider dead cannot be reached" in ended.err
    assert "error: There is no provider 'x'" in desk.run("gc", "--provider", "x").err


def test_providers_are_shown_with_and_without_a_temporal(desk: Place, tmp_path: Path) -> None:
    there = desk.run("providers", "--json").facts
    assert there["note"] is None
    assert {one["name"]: one["key"] for one in there["providers"]}["stub"] == "set"
    assert "stub" in desk.run("providers").out
    one = desk.run("providers", "stub")
    assert one.out.startswith("Provider  stub (openai, http://127.0.0.1:")
    alone = Place(tmp_path, SandboxAdmin(""))
    ended = alone.run("providers")
    assert (ended.code, "https://api.openai.com/v1" in ended.out) == (0, True)
    assert "The ledgers are not known. No Temporal is configured" in ended.err
    missing = alone.run("providers", "openai", "--json").facts
    assert [(one["name"], one["key"], one["ledgers"]) for one in missing["providers"]] == [("openai", "missing", [])]
    assert alone.run("providers", "opena").err.startswith("error: There is no provider 'opena'")
    away = alone.run("providers", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert (away.code, "cannot be reached" in away.err) == (0, True)
    assert not (tmp_path / ".durabatch").exists()


def test_output_that_nobody_reads_any_more_ends_the_command_quietly(desk: Place) -> None:
    id = "piped"
    desk.run("run", desk.rows("x", name="piped.jsonl"), *COMMON, "--id", id)
    with desk.start("results", id) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert "Traceback" not in err and "Exception" not in err


def test_every_subcommand_shows_an_example(tmp_path: Path) -> None:
    shown = Place(tmp_path, SandboxAdmin("")).run_all([[name, "--help"] for name in SUBCOMMANDS])
    for name, ended in zip(SUBCOMMANDS, shown, strict=True):
        assert ended.code == 0
        assert f"durabatch {name}" in " ".join(ended.out.partition("Example:")[2].split())


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    ended = Place(tmp_path, SandboxAdmin("")).run("--help", PYTHONPROFILEIMPORTTIME="1")
    assert ended.code == 0
    assert all(f"  {name} " in ended.out for name in SUBCOMMANDS)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.err.splitlines()}
    assert "typer" in imported
    assert not imported & {"temporalio", "pydantic", "httpx2", "aiohttp", "obstore", "msgspec", "rich"}
