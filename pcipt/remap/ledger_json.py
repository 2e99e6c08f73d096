"""The ledger's own document as JSON values, and back. Pure."""

from collections.abc import Mapping

from pcipt.errors import AddressError, MalformedError
from pcipt.pci import Address, Range, frames_from_range, parse_sbdf
from pcipt.remap.ledger import Entry, Ledger
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import mapped_from_json, mapped_to_json


def ledger_to_json(ledger: Ledger) -> dict[str, object]:
    """Return the ledger's own document as JSON values: the boot id, the entries, and the runs of `ours`.

    `theirs`, `messages_lost`, `sizes`, `given_up` and `faulty` are not in it.
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
    Raises: MalformedError if `value` is not an object, if a field is missing, or if a field has no valid
            value. The word of an entry is not checked.
    """
    if not isinstance(value, dict):
        raise MalformedError("ledger", 0, "not a ledger: no object")
    try:
        entries = tuple(_entry_from_json(entry) for entry in value["entries"])
        return Ledger(str(value["boot_id"]), entries, mapped_from_json(value.get("mappings", []), "ledger"))
    except (KeyError, TypeError, ValueError, AddressError) as error:
        raise MalformedError("ledger", 0, f"not a ledger: {error!r}") from error


def _entry_from_json(entry: Mapping[str, object]) -> Entry:
    """Return an entry from its JSON object.
    Raises: KeyError, TypeError, ValueError or AddressError if a field is missing or has no valid value.
    """
    frames = None
    if "start" in entry:
        span = Range(Address(int(str(entry["start"]), 16)), int(str(entry["size"])))
        frames = frames_from_range(span)
        if span.start < 0 or frames.count < 1 or frames.range != span:
            raise ValueError(f"no whole pages: {entry['start']}, {span.size} bytes")
    return Entry(
        str(entry["action"]),
        parse_sbdf(str(entry["sbdf"])),
        State(entry["state"]),
        str(entry["reason"]),
        bar=int(str(entry["bar"])) if "bar" in entry else None,
        frames=frames,
        moved_from=parse_sbdf(str(entry["moved_from"])) if "moved_from" in entry else None,
        late=str(entry["late"]) if "late" in entry else None,
        vfs_on=bool(entry.get("vfs_on", False)),
        counted=bool(entry.get("counted", True)),
    )
