"""The start: from an empty folder to the first result, with nothing running and nothing configured.

    python benchmarks/start.py --times 5

`durabatch run` of one row starts an embedded Temporal and the sandbox, and ends both again. It reports the time until
it prints the result, and how long it goes on after that. One run before the others, which is not counted, warms the
disk, and leaves the modules' bytecode, which an installation has from the beginning: it is kept in a folder of its own,
whatever this process is told of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab import MODEL, clean_environment, scratch
from report import arguments, publish, say, spread

#: What the design asks for, in seconds, of the medians.
_GOALS = {"first_result": 2.5, "end_after_result": 0.3, "help": 0.15}


def installed(bytecode: Path) -> dict[str, str]:
    """Return the environment of a command whose modules are compiled once, into a folder."""
    environment = {**clean_environment(), "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def timed(*words: str, folder: Path, environment: dict[str, str]) -> tuple[float, float, str]:
    """Run the command; return the seconds until it printed something, from then to its end, and what it printed."""
    command = [str(Path(sys.executable).with_name("durabatch")), *words]
    began = time.perf_counter()
    with (folder / "stderr").open("w+") as errors:
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            assert process.stdout is not None
            out = process.stdout.readline()
            first = time.perf_counter() - began
            out += process.stdout.read()
        after = time.perf_counter() - began - first
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"durabatch {' '.join(words)} failed:\n{errors.read()}")
    return first, after, out


def first_result(environment: dict[str, str]) -> dict[str, float]:
    """Run one row in a fresh folder, then the same command again, which finds the batch ended."""
    with scratch() as folder:
        (folder / "one.jsonl").write_text('{"custom_id": "a", "input": "Say hi."}\n')
        words = ("run", "one.jsonl", "--provider", "sandbox", "--model", MODEL, "--json")
        first, after, out = timed(*words, folder=folder, environment=environment)
        result = json.loads(out)
        if result["counts"]["succeeded"] != 1:
            raise SystemExit(f"The row did not succeed: {out}")
        again, _, _ = timed(*words, folder=folder, environment=environment)
    return {"first": first, "after": after, "again": again}


def measure(times: int, warm: bool) -> dict[str, Any]:
    runs: list[dict[str, float]] = []
    helps: list[float] = []
    with scratch() as folder, scratch() as bytecode:
        environment = installed(bytecode)
        if warm:
            first_result(environment)
            timed("--help", folder=folder, environment=environment)
        for number in range(times):
            runs.append(first_result(environment))
            helps.append(sum(timed("--help", folder=folder, environment=environment)[:2]))
            say(
                f"{number + 1}/{times}: {runs[-1]['first']:.2f} s, over {runs[-1]['after']:.2f} s later, "
                f"--help {helps[-1]:.2f} s"
            )
    measured = {
        "first_result": spread([run["first"] for run in runs]),
        "end_after_result": spread([run["after"] for run in runs]),
        "help": spread(helps),
    }
    return {
        "goal": {
            **{f"{name}_seconds_at_most": most for name, most in _GOALS.items()},
            "met": all(measured[name]["median"] <= most for name, most in _GOALS.items()),
        },
        **{f"{name}_seconds": seconds for name, seconds in measured.items()},
        "result_again_seconds": spread([run["again"] for run in runs]),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="count the first run, too")
    given = parser.parse_args()
    publish("start", measure(given.times, not given.cold), given.out)


if __name__ == "__main__":
    main()
