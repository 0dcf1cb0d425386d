"""Files that are no JSONL are named; whatever may hold a row is left to the rows."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from durabatch.activities.formats import SAMPLE, check_format, checked
from durabatch.contract import InvalidInput

SECRET = "Sesame"
ROW = json.dumps({"custom_id": "a-1", "input": SECRET})
BOM = "\ufeff"


def archive(member: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as members:
        members.writestr(member, ROW)
    return made.getvalue()


OTHERS: dict[str, tuple[bytes, str]] = {
    "array": (f"[\n {ROW},\n {ROW}\n]\n".encode(), "one JSON array"),
    "array on one line": (f"[{ROW},{ROW}]".encode(), "one JSON array"),
    "array with a mark": (f"{BOM}[{ROW}]".encode(), "one JSON array"),
    "array of one element a line": (f"[\n{ROW}\n]".encode(), "one JSON array"),
    "array after blank lines": (f"\n\n  [{ROW},\n{ROW}]".encode(), "one JSON array"),
    "array that is not whole": (f"[{ROW},{ROW}".encode(), "one JSON array"),
    "long array on one line": (f"[{','.join([ROW] * 3000)}]".encode(), "one JSON array"),
    "indented object": (json.dumps(json.loads(ROW), indent=2).encode(), "JSON over several lines"),
    "indented objects": (json.dumps(json.loads(ROW), indent=2).encode() * 2, "JSON over several lines"),
    "zip": (archive("rows.jsonl"), "a zip archive"),
    "Excel": (archive("[Content_Types].xml"), "an Excel workbook or another Office file"),
    "old Excel": (bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 600, "an Excel workbook or another Office file"),
    "Parquet": (b"PAR1\x15\x04", "a Parquet file"),
    "bzip2": (b"BZh91AY", "compressed with bzip2"),
    "xz": (b"\xfd7zXZ\0\0", "compressed with xz"),
    "gzip in gzip": (b"\x1f\x8b\x08\0", "compressed twice"),
    "tar": (b"rows.jsonl".ljust(257, b"\0") + b"ustar\x0000", "a tar archive"),
    "CSV": (f"custom_id,prompt\na-1,{SECRET}\n".encode(), "a table, such as CSV"),
    "TSV": (f"custom_id\tprompt\na-1\t{SECRET}\n".encode(), "a table, such as CSV"),
    "error page": (b"<!DOCTYPE html><p>404", "HTML or XML"),
    **{
        f"{name}{' with a mark' if mark else ''}": ((mark + ROW + "\n" + ROW).encode(name), name.upper()[:6])
        for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        for mark in ("", BOM)
    },
}


@pytest.mark.parametrize(("data", "name"), OTHERS.values(), ids=OTHERS)
def test_a_file_of_another_format_is_named_in_one_sentence_that_says_what_to_do(data: bytes, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_format(data[:SAMPLE], len(data) <= SAMPLE, "The file f")
    told = caught.value.message
    assert told.startswith(f"The file f is {name}")
    assert ", and not JSONL: " in told and told.endswith(".")
    assert SECRET not in told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n \n",
        ROW,
        f"{BOM}{ROW}\r\n{ROW}",
        f"{ROW}{ROW}",
        "Sesame",
        '"Sesame", 1',
        "17",
        # A row of a wrong form among others is refused by its line, and the others may go.
        f'["Sesame"]\n{ROW}',
        f'["Sesame"\n{ROW}',
        f"[1]\n[2]\n{ROW}",
        f"{{\n{ROW}",
        f"a, b\n{ROW}",
    ],
)
def test_what_may_hold_a_row_is_left_to_the_rows(text: str) -> None:
    check_format(text.encode(), True, "The file f")


@pytest.mark.parametrize("size", [1, 7, 4096, SAMPLE, 1 << 20])
def test_a_file_is_the_same_behind_the_check_however_it_comes(size: int) -> None:
    data = f"{ROW}\n".encode() * 3000
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert b"".join(checked(pieces, "The file f")) == data
    array = b"[" + data.replace(b"\n", b",\n")
    with pytest.raises(InvalidInput, match="one JSON array"):
        next(checked([array[start : start + size] for start in range(0, len(array), size)], "The file f"))
