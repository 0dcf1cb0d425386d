"""What is wrong with a command is said in one sentence, before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.workspace import COMMON, Workspace

ROW = '{"custom_id":"a","input":"x"}'
WRONG = {
    "a missing file": (["run", "nowhere.jsonl", *COMMON], "There is no file nowhere.jsonl."),
    "an empty file": (["run", "empty.jsonl", *COMMON], "The file empty.jsonl is empty"),
    "a folder with other files": (["run", ".", *COMMON], "whose name is not that of a JSONL file"),
    "an empty folder": (["run", "hollow", *COMMON], "The folder hollow is empty"),
    "a pattern that matches nothing": (["run", "*.none", *COMMON], "No file matches *.none"),
    "an unknown provider": (["run", "row.jsonl", "--provider", "stubb"], "did you mean 'stub'?); known are:"),
    "a missing key": (["run", "row.jsonl", "--provider", "openai"], "the environment variable OPENAI_API_KEY"),
    "an id that is no id": (["run", "row.jsonl", *COMMON, "--id", "a/b"], "The batch id 'a/b' cannot be used"),
    "no duration": (["run", "row.jsonl", *COMMON, "--deadline", "soon"], "deadline: must be a duration"),
    "a priority that is too large": (
        ["run", "row.jsonl", *COMMON, "--priority", "9"],
        "priority: Input should be less than or equal to 5",
    ),
    "a priority that is too small": (
        ["submit", "row.jsonl", *COMMON, "--priority", "0"],
        "priority: Input should be greater than or equal to",
    ),
    "an empty fairness key": (
        ["run", "row.jsonl", *COMMON, "--fairness-key", ""],
        "fairness_key: String should have at least 1",
    ),
    "a long fairness key": (
        ["submit", "row.jsonl", *COMMON, "--fairness-key", "k" * 65],
        "fairness_key: String should have at",
    ),
    "an input elsewhere": (["run", "s3://other/rows.jsonl", *COMMON], "is outside the store"),
    "an unknown batch": (["status", "nobody-knows"], "There is no batch 'nobody-knows'"),
    "an unknown batch's results": (["results", "nobody-knows"], "There is no batch 'nobody-knows'"),
    "an unknown batch's cancel": (["cancel", "nobody-knows"], "There is no batch 'nobody-knows'"),
    "an unknown batch's watch": (["watch", "nobody-knows"], "There is no batch 'nobody-knows'"),
    "an unknown event": (
        ["webhooks", "resend", "evt_nobody"],
        "There is no event 'evt_nobody' of default: `durabatch web",
    ),
    "an unknown tenant's event": (
        ["webhooks", "resend", "evt_x", "--tenant", "a/b"],
        "'a/b' is not the name of a tenant",
    ),
    "an unknown webhook": (["webhooks", "enable", "none"], "There is no webhook 'none' of 'default' in durabatch.toml"),
    "a configuration that is missing": (["--config", "none.toml", "list"], "cannot be read: No such file"),
    "a configuration with an unknown field": (["--config", "wrong.toml", "list"], "unknown field store.uri (did you"),
    "a configuration that is no TOML": (["--config", "row.jsonl", "list"], "is no TOML"),
}


@pytest.fixture(scope="session")
def odd(dev: Workspace) -> Workspace:
    """A folder with a Temporal and a worker, and with files that are of no use."""
    (dev.folder / "row.jsonl").write_text(ROW)
    (dev.folder / "empty.jsonl").write_text("")
    (dev.folder / "hollow").mkdir()
    (dev.folder / "wrong.toml").write_text('[store]\nuri = "x"\n')
    return dev


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_a_sentence_and_nothing_is_submitted(odd: Workspace, what: str) -> None:
    before = odd.bought()
    arguments, words = WRONG[what]
    ended = odd.call(*arguments)
    assert (ended.code, ended.out) == (1, "")
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0], ended.err
    assert "event" not in what or "hint: " not in ended.err  # a list of batches shows no events
    assert odd.bought() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "No such command"),
        (["run"], "Missing argument"),
        (["run", "x", *COMMON, "--param", "x"], "must be NAME=VALUE"),
        (["run", "x", *COMMON, "--priority", "first"], "Invalid value for '--priority'"),
        (["list", "--limit", "0"], "Invalid value for '--limit'"),
        (["gc", "--older-than", "soon"], "must be a duration"),
        (["gc", "--older-than", "-1d"], "must be a duration"),
        (["gc", "--cancel-orphans"], "needs --delete"),
    ],
)
def test_a_wrong_command_line_is_answered_with_its_usage(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "x").write_text(ROW)
    ended = Workspace(tmp_path).call(*arguments)
    assert ended.code == 2
    assert "Usage:" in ended.err
    assert words in " ".join(ended.err.split())


def test_without_a_temporal_it_says_how_to_get_one(tmp_path: Path) -> None:
    here = Workspace(tmp_path)
    for arguments in (["list"], ["status", "x"], ["submit", here.rows("x"), "--provider", "openai"]):
        ended = here.call(*arguments)
        assert ended.code == 1
        assert "set TEMPORAL_ADDRESS, or start one here with `durabatch dev`" in ended.err
    away = here.call("list", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert away.code == 1
    assert "Temporal at 127.0.0.1:1 cannot be reached (connection refused)" in away.err
    other = here.call("dev", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert other.code == 1
    assert "A Temporal is configured, and `durabatch dev` would run another one" in other.err
    assert not (tmp_path / ".durabatch").exists()
