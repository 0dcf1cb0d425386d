"""Where things are in the store: every object's name is made here, and taken apart here. Pure.

::

    ~store.json                                  the store's identity
    ~claims/, ~followers/, ~gateway/             `claim_names`, `follower_names`, `gateway_layout`
    <batch id>/input-<digest>.jsonl              rows that a client brought: one file,
    <batch id>/input-<digest>/00000-<name>       or several
    <batch id>/input-<digest>.jsonl.measured.json    what is known of the one file
    <batch id>/~try.json                         the batch is a try: nobody needs what is left of it
    <batch's folder>/
        input.jsonl                              rows given inline in the spec
        input.json                               the list of the input's files, where there are several
        input/00000-<digest>.jsonl               the expanded copy of a compressed file
        plan.json
        results.jsonl, errors.jsonl              or results.manifest.json, errors.manifest.json
        result.json
        shards/00000/
            shard.json, rows.jsonl               the shard's record, and its index
            attempt-1/
                rows.json                        the rows that an attempt after the first takes
                output.jsonl, error.jsonl        what the provider sent
                kept/1-0f3a…-00000.jsonl         in direct mode: answers, as each run has kept them,
                sent/1-0f3a….rows, ….mark        and which rows it was to send, and how many it may have sent
                ran.json                         and what became of all that
                intent, intent-2, …              notes of creates that may have bought something
                withdrawn-1, …                   the numbers of notes that were withdrawn
            unmatched.jsonl                      lines of the provider's that belong to no row
            results.jsonl, errors.jsonl
            settled.json                         the shard's counts and costs

A batch's folder is `<batch id>/` unless its spec names another. Paths are relative to the store, and what is called a
name here is relative to the batch's folder. These names are for ever: batches of older versions are under them.
"""

from __future__ import annotations

import hashlib
import re

from .object_name import Kind, Name, Run

#: The store's identity. No batch id has a tilde, so this is no batch's folder.
IDENTITY = "~store.json"

#: The two files of results, without their suffixes.
RESULTS, ERRORS = "results", "errors"
#: The two files that a provider sends.
OUTPUT, ERROR = "output", "error"

#: The folder of all shards of a batch, in the batch's own.
SHARDS = "shards"

_PLAN = "plan.json"
_TRY = "~try.json"
_RESULT = "result.json"
_FILE_LIST = "input.json"
_INLINE = "input.jsonl"
_COPIES = "input"
_SHARD = "shard.json"
_INDEX = "rows.jsonl"
_SETTLED = "settled.json"
_UNMATCHED = "unmatched.jsonl"
_PICKED = "rows.json"
_RAN = "ran.json"
_KEPT = "kept"
_SENT = "sent"
_LINES = ".jsonl"
_MANIFEST = ".manifest.json"

#: What a batch writes at the top of its folder; rows given inline are its input.
WRITTEN = (_PLAN, _FILE_LIST, f"{RESULTS}{_LINES}", f"{ERRORS}{_LINES}", _RESULT)

#: Digits of a SHA-256 in a name: 64 bits, beyond any accident.
_DIGITS = 16
#: What the name of a brought file is free of: what a path must not hold, and what is hard to type.
_UNSTORED = re.compile(r"[^\w.,+=@() -]")
#: Bytes of it that are kept; file systems take 255.
_LONGEST = 200


# --- names are made ---


def plan_path(root: str) -> str:
    return f"{root}/{_PLAN}"


def result_path(root: str) -> str:
    return f"{root}/{_RESULT}"


def try_path(batch_id: str) -> str:
    """Return the path of what says that a batch is a try. No user calls a file so, and no other batch has it."""
    return f"{batch_id}/{_TRY}"


def results_path(root: str, which: str) -> str:
    """Return the path of `RESULTS` or `ERRORS` in one file."""
    return f"{root}/{which}{_LINES}"


def manifest_path(root: str, which: str) -> str:
    """Return the path of the list of parts that `RESULTS` or `ERRORS` are in."""
    return f"{root}/{which}{_MANIFEST}"


def inline_path(root: str) -> str:
    """Return the path, or with a URI the URI, of the rows given inline."""
    return f"{root}/{_INLINE}"


def file_list_path(root: str) -> str:
    return f"{root}/{_FILE_LIST}"


def copy_path(root: str, number: int, source: str) -> str:
    """Return the path of the expanded copy of a compressed file.

    Args:
        number: the file's place among the files of the input, from 0.
        source: what tells the file, as it was then, from any other.
    """
    return f"{root}/{_COPIES}/{number:05d}-{short_digest(source)}{_LINES}"


def brought_folder(batch_id: str, digest: str) -> str:
    """Return the path of a folder of rows that a client brings, by the digest of its content.

    Rows in one file are beside it, at this path with a suffix.
    """
    return f"{batch_id}/{_COPIES}-{digest[:_DIGITS]}"


def brought_name(name: str) -> str:
    """Return what a file of a brought folder is called there, behind its number, by its path as its user has it.

    `Name.own` is the way back; characters that are hard to type, and the beginning of a long name, do not come back.
    """
    # The tilde is free for the slashes.
    safe = "~".join(_UNSTORED.sub("-", part) for part in name.split("/"))
    return safe.encode()[-_LONGEST:].decode(errors="ignore")


def brought_path(batch_id: str, digest: str, number: int, width: int, name: str) -> str:
    """Return the path of one file in a brought folder: the numbers keep the files in their order.

    Args:
        name: as `brought_name`.
    """
    return f"{brought_folder(batch_id, digest)}/{number:0{width}d}-{name}"


def measured_path(path: str) -> str:
    """Return the path of what is known of the rows in one file that a client brought, by the file's own path."""
    return f"{path}.measured.json"


def shard_folder(shard: int) -> str:
    """Return the folder of a shard, relative to the batch's own: "shards/00000"."""
    return f"{SHARDS}/{shard:05d}"


def attempt_folder(shard: int, attempt: int) -> str:
    """Return the folder of an attempt, relative to the batch's own: "shards/00000/attempt-1"."""
    return f"{shard_folder(shard)}/attempt-{attempt}"


def shard_path(root: str, shard: int) -> str:
    return f"{root}/{shard_folder(shard)}/{_SHARD}"


def index_path(root: str, shard: int) -> str:
    return f"{root}/{shard_folder(shard)}/{_INDEX}"


def settled_path(root: str, shard: int) -> str:
    return f"{root}/{shard_folder(shard)}/{_SETTLED}"


def unmatched_name(shard: int) -> str:
    """Return the name, in the batch's folder, of the provider's lines that belong to no row."""
    return f"{shard_folder(shard)}/{_UNMATCHED}"


def part_name(shard: int, which: str) -> str:
    """Return the name, in the batch's folder, of a shard's `RESULTS` or `ERRORS`."""
    return f"{shard_folder(shard)}/{which}{_LINES}"


def picked_path(root: str, shard: int, attempt: int) -> str:
    """Return the path of the list of rows that an attempt after the first takes."""
    return f"{root}/{attempt_folder(shard, attempt)}/{_PICKED}"


def answers_path(root: str, shard: int, attempt: int, which: str) -> str:
    """Return the path of what a provider sent as its `OUTPUT` or `ERROR`."""
    return f"{root}/{attempt_folder(shard, attempt)}/{which}{_LINES}"


def kept_path(root: str, shard: int, attempt: int, run: Run, number: int) -> str:
    """Return the path of a run's answers, in direct mode: its files are numbered from 0."""
    return f"{root}/{attempt_folder(shard, attempt)}/{_KEPT}/{run}-{number:05d}{_LINES}"


def sent_path(root: str, shard: int, attempt: int, run: Run) -> str:
    """Return the path of the list of rows that a run is to send."""
    return f"{root}/{attempt_folder(shard, attempt)}/{_SENT}/{run}.rows"


def mark_path(root: str, shard: int, attempt: int, run: Run) -> str:
    """Return the path of the mark: how many rows of its list a run may have sent."""
    return f"{root}/{attempt_folder(shard, attempt)}/{_SENT}/{run}.mark"


def ran_path(root: str, shard: int, attempt: int) -> str:
    """Return the path of what became of an attempt's runs in direct mode."""
    return f"{root}/{attempt_folder(shard, attempt)}/{_RAN}"


def note_path(root: str, shard: int, attempt: int, number: int) -> str:
    """Return the path of the note that a create is about to be sent; the first one's has no number."""
    return f"{root}/{attempt_folder(shard, attempt)}/{'intent' if number == 1 else f'intent-{number}'}"


def withdrawn_path(note: str) -> str:
    """Return the path of what keeps the number of a note that is withdrawn, by the note's own path."""
    folder, _, name = note.rpartition("/")
    return f"{folder}/withdrawn-{name.rpartition('-')[2] if '-' in name else 1}"


def short_digest(text: str) -> str:
    """Return the digits of a text's SHA-256 that are part of a name."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


# --- names are taken apart ---

_NAME = re.compile(
    r"(?P<plan>plan\.json)|(?P<result>result\.json)|(?P<try>~try\.json)|(?P<inline>input\.jsonl)|(?P<list>input\.json)"
    r"|(?P<stem>results|errors)(?P<suffix>\.jsonl|\.manifest\.json)"
    r"|input/(?P<copy>\d{5,})-[0-9a-f]{16}\.jsonl"
    r"|input-[0-9a-f]{16}(?:\.[a-z.]+|/(?P<file>\d{5,})-(?P<own>[^/]+))(?P<brought>)"
    r"|shards/(?P<other>)(?:(?P<shard>\d+)/(?P<rest>.+)|.+)",
    re.DOTALL,
)
_IN_SHARD = re.compile(
    r"(?P<shard>shard\.json)|(?P<index>rows\.jsonl)|(?P<settled>settled\.json)|(?P<unmatched>unmatched\.jsonl)"
    # With any suffix: nobody but Durabatch writes there, and a trace of a purchase must not be overlooked.
    r"|(?P<stem>results|errors)\.[^/]+"
    r"|attempt-(?P<attempt>\d+)/(?:(?P<picked>rows\.json)|(?P<answers>output|error)\.jsonl"
    r"|(?P<ran>ran\.json)|kept/(?P<kept>\d+-[0-9a-f]{8})-(?P<kept_number>\d{5,})\.jsonl"
    r"|sent/(?P<sent>\d+-[0-9a-f]{8})\.(?P<which>rows|mark)"
    r"|(?P<note>intent)(?:-(?P<noted>\d+))?|withdrawn-(?P<withdrawn>\d+)|.+)",
    re.DOTALL,
)
_BROUGHT = re.compile(r"(?:.*/)?(input-[0-9a-f]{16}(?:\.[a-z.]+|/\d{5,}-[^/]+))", re.DOTALL)

_TOP = {"plan": Kind.PLAN, "result": Kind.RESULT, "try": Kind.TRY, "inline": Kind.INLINE, "list": Kind.FILE_LIST}
_OF_SHARD = {"shard": Kind.SHARD, "index": Kind.INDEX, "settled": Kind.SETTLED, "unmatched": Kind.UNMATCHED}


def parse_name(name: str) -> Name | None:
    """Take apart the name of an object in a batch's folder; None for one that Durabatch does not give."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    if found["other"] is not None:
        return Name(kind=Kind.OTHER) if found["shard"] is None else _in_shard(int(found["shard"]), found["rest"])
    if found["stem"]:
        return Name(kind=Kind.RESULTS, stem=found["stem"], manifest=found["suffix"] == _MANIFEST)
    if found["copy"]:
        return Name(kind=Kind.COPY, number=int(found["copy"]))
    if found["brought"] is not None:
        return Name(kind=Kind.BROUGHT, number=int(found["file"] or 0), stem=found["own"] or "")
    return Name(kind=next(kind for group, kind in _TOP.items() if found[group]))


def _in_shard(shard: int, rest: str) -> Name:
    found = _IN_SHARD.fullmatch(rest)
    if found is None:
        return Name(kind=Kind.OTHER, shard=shard)
    if found["stem"]:
        return Name(kind=Kind.SHARD_RESULTS, shard=shard, stem=found["stem"])
    if found["attempt"] is None:
        return Name(kind=next(kind for group, kind in _OF_SHARD.items() if found[group]), shard=shard)
    attempt = int(found["attempt"])
    if found["picked"]:
        return Name(kind=Kind.PICKED, shard=shard, attempt=attempt)
    if found["answers"]:
        return Name(kind=Kind.ANSWERS, shard=shard, attempt=attempt, stem=found["answers"])
    if found["ran"]:
        return Name(kind=Kind.RAN, shard=shard, attempt=attempt)
    if found["kept"]:
        run, number = _run(found["kept"]), int(found["kept_number"])
        return Name(kind=Kind.KEPT, shard=shard, attempt=attempt, run=run, number=number)
    if found["sent"]:
        kind = Kind.SENT if found["which"] == "rows" else Kind.MARK
        return Name(kind=kind, shard=shard, attempt=attempt, run=_run(found["sent"]))
    if found["note"]:
        return Name(kind=Kind.NOTE, shard=shard, attempt=attempt, number=int(found["noted"] or 1))
    if found["withdrawn"]:
        return Name(kind=Kind.WITHDRAWN, shard=shard, attempt=attempt, number=int(found["withdrawn"]))
    return Name(kind=Kind.OTHER, shard=shard, attempt=attempt)


def _run(text: str) -> Run:
    number, _, token = text.partition("-")
    return Run(int(number), token)


def is_written(name: str) -> bool:
    """Return whether a batch writes an object of this name into its folder, so that it must not be its input."""
    return name in WRITTEN or name.startswith((f"{SHARDS}/", f"{_COPIES}/"))


def parse_brought(path: str) -> Name | None:
    """Take apart the path of rows that a client brought, in whichever folder; None for any other path."""
    found = _BROUGHT.fullmatch(path)
    return parse_name(found[1]) if found else None


def is_record(path: str) -> bool:
    """Return whether a path may be that of a plan.json or a result.json, which say whose a folder is."""
    return path.endswith((f"/{_PLAN}", f"/{_RESULT}"))


def is_manifest(path: str) -> bool:
    """Return whether a path is that of a list of parts."""
    return path.endswith(_MANIFEST)


def bought_in(path: str) -> str | None:
    """Return the batch's folder, where the object at a path may be a trace of a purchase; None where it is none."""
    at = path.find("/", 1)
    while at > 0:
        name = parse_name(path[at + 1 :])
        if name is not None and name.bought:
            return path[:at]
        at = path.find("/", at + 1)
    return None
