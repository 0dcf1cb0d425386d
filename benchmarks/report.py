"""What a benchmark says: one JSON object, with the machine it was measured on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")

MIB = 1024 * 1024


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows what every benchmark takes."""
    # As Ctrl-C does: processes and gigabytes of scratch files are cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument(
        "--out",
        nargs="?",
        type=Path,
        const=RESULTS,
        metavar="FOLDER",
        help=f"write the JSON into this folder, too; without a name into {RESULTS.parent.name}/{RESULTS.name}",
    )
    return parser


def say(text: str) -> None:
    """Tell whoever waits how far it is; stdout is for the JSON."""
    print(text, file=sys.stderr, flush=True)


def publish(name: str, facts: dict[str, Any], out: Path | None) -> None:
    """Print what was measured, and write it down if that was asked for."""
    text = json.dumps({"benchmark": name, "machine": machine(), **facts}, indent=2, ensure_ascii=False)
    print(text, flush=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Return the median of a few measurements and how far they lie apart."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "times": len(values),
    }


def machine() -> dict[str, Any]:
    """Return what figures depend on beside the code."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "durabatch": version("durabatch"),
        "temporalio": version("temporalio"),
        "temporal": _temporal(),
        "httpx2": version("httpx2"),
        "msgspec": version("msgspec"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _temporal() -> str:
    command = [str(Path(sys.executable).with_name("temporal")), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
