"""Where the gateway's files and batches are in the store: their ids and paths are made and taken apart here. Pure.

::

    ~gateway/<tenant>/
        files/<file id>/content             the bytes
        files/<file id>/meta.json           what is known of them; written last, so a file is there when this is
        index-files/<4>/<2>/<time>-<id>     the purpose of each file, for listings: newest first
        index-files-by/<purpose>/<4>/<2>/<time>-<id>    an empty object for each file of a purpose
        index/<4>/<2>/<time>-<id>           the same for batches: the create request, and at the end the final object
        index-messages/<4>/<2>/<time>-<id>  the same for Anthropic's message batches
        messages/<id>/results.jsonl         a message batch's results
        messages/<id>/requests-<bytes>      an empty object for as long as its requests are kept: how large they are
        messages/<id>/deleted               says that a message batch was deleted, and is never to run again
        idem/<sha256 of the key>            which batch an idempotency key made
        retries/<batch id>/<number>         the create request of each retry of a batch, from 00001 on
        analytics/<batch id>                what a batch that has ended has used and cost
        spent/<day>/<number>                what the day's batches may cost, entry by entry: the newest has the sum
        spent-by/<batch id>[-end]           on which day, and since which entry, a batch's entry is to be looked for
        index-events/<4>/<2>/<time>-<id>    an event for a webhook, and what became of it
        webhooks/<endpoint>/due/<time>-<id> an empty object for as long as it is to be delivered: when
        webhooks/<endpoint>/state.json      how the endpoint has answered lately
    ~gateway/~due/<day>/<tenant>/<id>       an empty object: something of the file or batch may have to go on this day

An id holds the millisecond in which it was made, so its path in an index follows from it and needs no look-up. The
time in an index's path is counted down from the largest one, so that the newest comes first in the order of names; its
first digits are folders, of three days and of 17 minutes, so that a page of a long list reads a few short ones.
Every path that a caller's id becomes part of is below the caller's tenant: another tenant's id names nothing there.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from datetime import date, datetime
from enum import StrEnum

#: No batch id has a tilde, so this is no batch's folder.
GATEWAY = "~gateway"

#: Digits of an id: milliseconds since 1970 reach beyond the year 2500.
_TIME, _RANDOM = 11, 13
_LAST = 16**_TIME - 1
#: Entries of what a day's batches may cost, and the digits of their numbers.
_MOST_ENTRIES, _ENTRY_DIGITS = 10**8 - 1, 8
_ID = re.compile(r"(file-|batch_|msgbatch_|evt_)([0-9a-f]{11})([0-9a-f]{13})")
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_ENTRY = re.compile(r"[0-9a-f]{11}-((?:file-|batch_|msgbatch_|evt_)[0-9a-f]{24})")
_REQUESTS = re.compile(r"requests-(\d{1,18})")
_PURPOSE = re.compile(r"[a-z][a-z_-]{0,39}")
_DELIVERY = re.compile(r"([0-9a-f]{11})-(evt_[0-9a-f]{24})")

#: The folder of what is due; no tenant is called so.
DUE = f"{GATEWAY}/~due"
_DUE = re.compile(rf"{GATEWAY}/~due/(\d{{4}}-\d\d-\d\d)/([^/]+)/([^/]+)")

#: The tenant of a gateway without keys.
DEFAULT_TENANT = "default"


class Listed(StrEnum):
    """What has an index."""

    FILES = "index-files"
    BATCHES = "index"
    MESSAGES = "index-messages"  #: Batches of Anthropic's shape.
    EVENTS = "index-events"  #: What webhooks are sent.


#: How the ids of each begin.
_PREFIXES = {Listed.FILES: "file-", Listed.BATCHES: "batch_", Listed.MESSAGES: "msgbatch_", Listed.EVENTS: "evt_"}
_LISTED = {prefix: listed for listed, prefix in _PREFIXES.items()}


def is_tenant(name: str) -> bool:
    """Return whether a tenant can have this name: small letters, digits, _ and -, 40 at most."""
    return _TENANT.fullmatch(name) is not None


def make_id(listed: Listed, at: datetime, random: str) -> str:
    """Return an id, 28 to 33 characters long.

    Args:
        at: when the object was made; milliseconds count.
        random: 13 hexadecimal digits at least, of which the first 13 are taken.
    """
    return f"{_PREFIXES[listed]}{int(at.timestamp() * 1000):0{_TIME}x}{random[:_RANDOM]}"


def is_id(listed: Listed, text: str) -> bool:
    """Return whether a text may be an id of this kind; nothing else ever becomes part of a path."""
    found = _ID.fullmatch(text)
    return found is not None and _LISTED[found[1]] is listed


def listed_as(id: str) -> Listed:
    """Return which list an id is in."""
    found = _ID.fullmatch(id)
    if found is None:
        raise ValueError("not an id of the gateway's")
    return _LISTED[found[1]]


def is_batch(text: str) -> bool:
    """Return whether a text may be the id of a batch, of either shape."""
    return is_id(Listed.BATCHES, text) or is_id(Listed.MESSAGES, text)


def made_at_ms(id: str) -> int:
    """Return when an id was made, in milliseconds since 1970."""
    found = _ID.fullmatch(id)
    if found is None:
        raise ValueError("not an id of the gateway's")
    return int(found[2], 16)


def last_id_before(listed: Listed, ms: int) -> str | None:
    """Return an id behind which those come, newest first, that were made before a millisecond; None if that is 0."""
    return f"{_PREFIXES[listed]}{ms:0{_TIME}x}{'f' * _RANDOM}" if ms else None


def first_id_at(listed: Listed, ms: int) -> str:
    """Return an id behind which all come that were made in a millisecond, and then those that were made before it."""
    return f"{_PREFIXES[listed]}{ms:0{_TIME}x}{'0' * _RANDOM}"


def files_folder(tenant: str) -> str:
    """Return the folder of all files of a tenant."""
    return f"{GATEWAY}/{tenant}/files"


def file_folder(tenant: str, file_id: str) -> str:
    return f"{GATEWAY}/{tenant}/files/{file_id}"


def content_path(tenant: str, file_id: str) -> str:
    return f"{file_folder(tenant, file_id)}/content"


def is_content(path: str) -> bool:
    """Return whether a path below a tenant's files is that of a file's bytes."""
    return path.endswith("/content")


def meta_path(tenant: str, file_id: str) -> str:
    return f"{file_folder(tenant, file_id)}/meta.json"


def is_purpose(text: str) -> bool:
    """Return whether files may have this purpose."""
    return _PURPOSE.fullmatch(text) is not None


def index_folder(tenant: str, listed: Listed, purpose: str | None = None) -> str:
    """Return the folder of an index: of files of one purpose if one is given, which `is_purpose` has seen."""
    return f"{GATEWAY}/{tenant}/{listed}" + (f"-by/{purpose}" if purpose else "")


def index_path(tenant: str, id: str, purpose: str | None = None) -> str:
    """Return the path of the entry of a file, a batch or an event in its index.

    Args:
        purpose: as `index_folder`.
    """
    time = f"{_LAST - made_at_ms(id):0{_TIME}x}"
    return f"{index_folder(tenant, listed_as(id), purpose)}/{time[:4]}/{time[4:6]}/{time}-{id}"


def parse_index_path(path: str) -> str | None:
    """Return the id that an entry's path names; None for any other path."""
    found = _ENTRY.fullmatch(path.rpartition("/")[2])
    return found[1] if found else None


def messages_folder(tenant: str, batch_id: str | None = None) -> str:
    """Return the folder of what a message batch has beside its entry; that of all of a tenant's if none is given."""
    return f"{GATEWAY}/{tenant}/messages" + (f"/{batch_id}" if batch_id else "")


def message_requests_path(tenant: str, batch_id: str, size: int) -> str:
    """Return the path of what says how many bytes a message batch's requests have, which are in another folder."""
    return f"{messages_folder(tenant, batch_id)}/requests-{size}"


def parse_message_requests_path(path: str) -> int | None:
    """Return the bytes that such a path names; None for any other path."""
    found = _REQUESTS.fullmatch(path.rpartition("/")[2])
    return int(found[1]) if found else None


def message_results_path(tenant: str, batch_id: str) -> str:
    """Return the path of the results of a message batch."""
    return f"{messages_folder(tenant, batch_id)}/results.jsonl"


def deleted_path(tenant: str, batch_id: str) -> str:
    """Return the path of what says that a message batch was deleted."""
    return f"{messages_folder(tenant, batch_id)}/deleted"


def find_batch(path: str) -> tuple[str, str] | None:
    """Return the tenant and the batch whose entry in the list is at a path; None for any other path."""
    parts, id = path.split("/"), parse_index_path(path)
    if id is None or len(parts) != 6 or not is_batch(id) or path != index_path(parts[1], id):
        return None
    return parts[1], id


def idempotency_path(tenant: str, key: str) -> str:
    return idempotency_path_of(tenant, key_digest(key))


def idempotency_path_of(tenant: str, digest: str) -> str:
    """Return the same by the key's digest."""
    return f"{GATEWAY}/{tenant}/idem/{digest}"


def key_digest(key: str) -> str:
    """Return what the path of an idempotency key ends with."""
    return hashlib.sha256(key.encode()).hexdigest()


def spent_folder(tenant: str, day: date | None = None) -> str:
    """Return the folder of what a day's batches may cost; of all days if none is given."""
    return f"{GATEWAY}/{tenant}/spent" + (f"/{day.isoformat()}" if day else "")


def spent_path(tenant: str, day: date, number: int) -> str:
    """Return the path of an entry, numbered from 1. The newest comes first in the order of names."""
    return f"{spent_folder(tenant, day)}/{_MOST_ENTRIES - number:0{_ENTRY_DIGITS}d}"


def parse_spent_path(path: str) -> int | None:
    """Return the number of the entry that a path names; None for any other path."""
    last = path.rpartition("/")[2]
    return _MOST_ENTRIES - int(last) if len(last) == _ENTRY_DIGITS and last.isdecimal() else None


def spent_day(path: str) -> date | None:
    """Return the day of an entry's path; None for any other path."""
    with suppress(ValueError, IndexError):
        return date.fromisoformat(path.split("/")[3])
    return None


def spender_path(tenant: str, key: str) -> str:
    """Return the path of what says where an entry is looked for; its key names a batch, or its end."""
    return f"{GATEWAY}/{tenant}/spent-by/{key}"


def retries_folder(tenant: str, batch_id: str) -> str:
    return f"{GATEWAY}/{tenant}/retries/{batch_id}"


def retry_path(tenant: str, batch_id: str, number: int) -> str:
    return f"{retries_folder(tenant, batch_id)}/{number:05d}"


def analytics_path(tenant: str, batch_id: str) -> str:
    return f"{GATEWAY}/{tenant}/analytics/{batch_id}"


def endpoint_folder(tenant: str, endpoint: str) -> str:
    """Return the folder of an endpoint of a tenant's webhooks, whose name is one that a tenant could have."""
    return f"{GATEWAY}/{tenant}/webhooks/{endpoint}"


def delivery_folder(tenant: str, endpoint: str) -> str:
    """Return the folder of what is to be delivered to an endpoint."""
    return f"{endpoint_folder(tenant, endpoint)}/due"


def delivery_path(tenant: str, endpoint: str, at_ms: int, event_id: str) -> str:
    """Return the path of what says when an event is to be delivered; in the order of names, the first is due first."""
    return f"{delivery_folder(tenant, endpoint)}/{at_ms:0{_TIME}x}-{event_id}"


def parse_delivery_path(path: str) -> tuple[int, str] | None:
    """Return when an event is due, and its id, by such a path; None for any other path."""
    found = _DELIVERY.fullmatch(path.rpartition("/")[2])
    return (int(found[1], 16), found[2]) if found else None


def endpoint_state_path(tenant: str, endpoint: str) -> str:
    return f"{endpoint_folder(tenant, endpoint)}/state.json"


def due_path(day: date, tenant: str, id: str) -> str:
    """Return the path of what says that a file or batch is to be looked at on a day (UTC)."""
    return f"{DUE}/{day.isoformat()}/{tenant}/{id}"


def parse_due_path(path: str) -> tuple[date, str, str] | None:
    """Return the day, the tenant and the file or batch that a path of what is due names; None for any other path."""
    found = _DUE.fullmatch(path)
    if found is None or not is_tenant(found[2]) or not any(is_id(listed, found[3]) for listed in Listed):
        return None
    with suppress(ValueError):  # no day of the calendar
        return date.fromisoformat(found[1]), found[2], found[3]
    return None
