"""The command `python -m durabatch.sandbox`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from .errors import SandboxError
from .server import serve
from .settings import Settings


def main() -> int:
    """Run a sandbox until a signal stops it; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m durabatch.sandbox",
        description="A stand-in LLM provider on loopback. Prints its URL as one line of JSON when it is ready.",
    )
    parser.add_argument("--state", type=Path, required=True, help="the folder to remember everything in")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; 0 picks a free one")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: loopback only)")
    for name in Settings.__struct_fields__:
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, metavar="VALUE")
    given = vars(parser.parse_args())
    state, port, host = given.pop("state"), given.pop("port"), given.pop("host")
    try:
        asyncio.run(serve(state, port, host, **{name: _value(word) for name, word in given.items()}))
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _value(word: str) -> Any:
    """The value of a setting on a command line: JSON such as 2, 0.5, true or null, or else the word itself."""
    try:
        return msgspec.json.decode(word)
    except msgspec.DecodeError:
        return word


if __name__ == "__main__":
    sys.exit(main())
