"""The ledger's own document as JSON values, and back. Pure."""

from typing import get_args

from pcipt.errors import MalformedError
from pcipt.remap.actions import Action, AddDevice, MapMmio, RewriteBar, UnmapMmio
from pcipt.remap.json_fields import (
    Fields,
    bar_number,
    flag,
    function,
    items,
    member,
    one_of,
    take_frames,
    text,
)
from pcipt.remap.ledger import WITH_FRAMES, Entry, Ledger
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedPages, mapped_to_json, run_from_json

_WORDS = {kind.word: kind for kind in get_args(Action) if kind not in (MapMmio, UnmapMmio)}  # have entries


def ledger_to_json(ledger: Ledger) -> dict[str, object]:
    """Return the ledger's own document as JSON values: the boot id, the entries, and the runs of `ours`.

    `theirs`, `messages_lost`, `sizes`, `given_up`, `faulty`, `severed` and `complaints` are not in it.
    """
    return {
        "boot_id": ledger.boot_id,
        "entries": [_entry_to_json(entry) for entry in ledger.entries],
        "mappings": mapped_to_json(ledger.ours()),
    }


def _entry_to_json(entry: Entry) -> dict[str, object]:
    """Return an entry as a JSON object. Fields that are None, True `counted` and False `vfs_on` are left out.
    Units:  `size` in bytes; `start` is a byte address in hexadecimal.
    """
    body: dict[str, object] = {
        "action": entry.word,
        "sbdf": str(entry.sbdf),
        "state": entry.state.value,
        "reason": entry.reason,
    }
    if entry.bar is not None:
        body["bar"] = entry.bar
    if entry.frames is not None:
        body |= {"start": hex(entry.frames.range.start), "size": entry.frames.range.size}
    if entry.moved_from is not None:
        body["moved_from"] = str(entry.moved_from)
    if entry.late is not None:
        body["late"] = entry.late
    if entry.vfs_on:
        body["vfs_on"] = True
    if not entry.counted:
        body["counted"] = False
    return body


def ledger_from_json(value: object) -> Ledger:
    """Return the ledger from the object that `ledger_to_json` wrote.

    If `mappings` is missing, the ledger has no mapped pages.
    Raises: MalformedError, which names the field, if `value` is not an object, or if a field is missing, not
            known, or has no valid value.
    """
    try:
        fields = Fields(value)
        boot_id = fields.take("boot_id", text)
        entries = fields.take("entries", lambda told: items(told, _entry_from_json))
        mapped = fields.find("mappings", lambda told: MappedPages(items(told, run_from_json)), MappedPages())
        fields.end()
    except ValueError as error:
        raise MalformedError("ledger", 0, f"not a ledger: {error}") from error
    return Ledger(boot_id, tuple(entries), mapped)


def _entry_from_json(entry: object) -> Entry:
    """Return an entry from its JSON object.
    Raises: ValueError, which names the field, if a field is missing, not known, or has no valid value.
    """
    fields = Fields(entry)
    word = fields.take("action", one_of(_WORDS))
    kind = _WORDS[word]
    adds = kind is AddDevice
    found = Entry(
        word,
        fields.take("sbdf", function),
        fields.take("state", member(State)),
        fields.take("reason", text),
        bar=fields.take("bar", bar_number) if kind is RewriteBar else None,
        frames=take_frames(fields) if kind in WITH_FRAMES else None,
        moved_from=fields.take("moved_from", function) if adds and "moved_from" in fields else None,
        late=fields.take("late", text) if adds and "late" in fields else None,
        vfs_on=adds and fields.find("vfs_on", flag, default=False),
        counted=kind not in WITH_FRAMES or fields.find("counted", flag, default=True),
    )
    fields.end()
    return found
