"""Changes, actions and the final shadow as JSON objects. Pure.

Addresses are strings in hexadecimal ("0x…"), sizes are numbers of bytes.
"""

from collections.abc import Callable

import attrs

from pcipt.pci.address import Sbdf
from pcipt.pci.bridge import Window
from pcipt.pci.units import Range
from pcipt.pci.write import ConfigWrite
from pcipt.remap.actions import (
    Action,
    CheckUnmapped,
    MapMmio,
    Outcome,
    RestoreReserved,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.writes.changes import (
    BarMapped,
    BarMoved,
    BarUnmapped,
    BridgeWindowChanged,
    BusRenumbered,
    Change,
    Decode,
    DecodeChanged,
    FunctionReset,
    Numbers,
    RomChanged,
    VfBarsChanged,
    VfRange,
)
from pcipt.remap.writes.shadow import Mapped, Shadow

Json = dict[str, object]
WITH_PAGES = (MapMmio, UnmapMmio, WithdrawReserved, RestoreReserved, CheckUnmapped)


def json_from_write(write: ConfigWrite) -> Json:
    """Return a write as a JSON object. `n`, `size` and `who` are null if they are unknown."""
    return {
        "type": "write",
        "n": write.number,
        "sbdf": str(write.sbdf),
        "offset": hex(write.offset),
        "size": write.size,
        "value": hex(write.value),
        "who": None if write.who is None else str(write.who),
    }


def json_from_change(change: Change) -> Json | None:
    """Return a change as a JSON object, or None for `RereadWanted`, which has none."""
    for kind, name, describe in _KINDS:
        if isinstance(change, kind):
            head = {"type": "change", "n": change.number, "sbdf": str(change.sbdf), "change": name}
            return {**head, **describe(change)}
    return None


def json_from_shadow(shadow: Shadow) -> Json:
    """Return a shadow as a JSON object.
    Shape:  lists "mapped", "virtual" and "bridges", in the order of the methods of `Shadow` with these names.
    """
    return {
        "mapped": [_entry(entry) for entry in shadow.mapped()],
        "virtual": [_entry(entry) for entry in shadow.virtual()],
        "bridges": [{"sbdf": str(sbdf), **attrs.asdict(numbers)} for sbdf, numbers in shadow.bridges()],
    }


def json_from_action(action: Action) -> Json:
    """Return an action as a JSON object.

    `start` and `size` (bytes) are the pages of a map, unmap or reserved region, and the new range of a
    rewrite; else they are null. `bar` is there only for a map, unmap or rewrite.
    """
    body: Json = {"action": action.word, "sbdf": str(action.sbdf), "start": None, "size": None}
    if isinstance(action, WITH_PAGES):
        body |= {"start": hex(action.frames.range.start), "size": action.frames.range.size}
    elif isinstance(action, RewriteBar):
        body |= {"start": hex(action.address), "size": action.size}
    if isinstance(action, MapMmio | UnmapMmio | RewriteBar):
        body["bar"] = action.bar
    return body | {"reason": action.reason}


def json_from_outcome(outcome: Outcome) -> Json:
    """Return an action and what came of it as a JSON object.

    `rule` (the name of the rule that refused) and `detail` are left out if they are empty.
    """
    body = json_from_action(outcome.action) | {"result": outcome.result.value}
    if outcome.rule:
        body["rule"] = outcome.rule
    return body | ({"detail": outcome.detail} if outcome.detail else {})


def _entry(entry: Mapped) -> Json:
    return {"sbdf": str(entry.sbdf), "bar": entry.bar, **_place(entry.range)}


def _mapped(change: BarMapped) -> Json:
    return {"bar": change.bar, "bar_kind": change.kind.value, **_place(change.after), "from": None,
            "to": hex(change.after.start)}  # fmt: skip


def _unmapped(change: BarUnmapped) -> Json:
    return {"bar": change.bar, "bar_kind": change.kind.value, **_place(change.before),
            "from": hex(change.before.start), "to": None}  # fmt: skip


def _moved(change: BarMoved) -> Json:
    """Return the fields of a moved BAR. `from_size` is there only if the size changed."""
    body: Json = {"bar": change.bar, "bar_kind": change.kind.value, **_place(change.after),
            "from": hex(change.before.start), "to": hex(change.after.start)}  # fmt: skip
    if change.before.size != change.after.size:
        body["from_size"] = change.before.size
    return body | {"assumed": None if change.assumed is None else change.assumed.value}


def _place(span: Range) -> Json:
    """Return the fields `address` and `size` of a range."""
    return {"address": hex(span.start), "size": span.size}


def _decode(change: DecodeChanged) -> Json:
    return {"from": _switches(change.before), "to": _switches(change.after)}


def _switches(decode: Decode | None) -> Json | None:
    """Return the decode bits as a JSON object; None (unknown) is returned as None."""
    return None if decode is None else {"io": decode.io, "memory": decode.memory}


def _rom(change: RomChanged) -> Json:
    return {"bar": 6, "from": change.before, "to": change.after}


def _window(change: BridgeWindowChanged) -> Json:
    return {"window": change.window.value, "from": _span(change.before), "to": _span(change.after)}


def _span(window: Window | None) -> Json | None:
    """Return a window as a JSON object; None (closed or unknown) is returned as None."""
    return None if window is None else {"base": hex(window.base), "limit": hex(window.limit)}


def _renumbered(change: BusRenumbered) -> Json:
    moved = [{"from": _address(before), "to": _address(after)} for before, after in change.moved]
    return {"from": _numbers(change.before), "to": _numbers(change.after), "moved": moved}


def _address(sbdf: Sbdf | None) -> str | None:
    return None if sbdf is None else str(sbdf)


def _numbers(numbers: Numbers) -> Json:
    return attrs.asdict(numbers)


def _vf_bars(change: VfBarsChanged) -> Json:
    return {"from": [_vf(span) for span in change.before], "to": [_vf(span) for span in change.after]}


def _vf(span: VfRange) -> Json:
    return {"bar": span.bar, "address": hex(span.start), "size": span.size, "count": span.count}


def _reset(change: FunctionReset) -> Json:
    return {"reset": change.kind.value}


_KINDS: tuple[tuple[type[Change], str, Callable[..., Json]], ...] = (
    (BarMapped, "bar-mapped", _mapped),
    (BarUnmapped, "bar-unmapped", _unmapped),
    (BarMoved, "bar-moved", _moved),
    (DecodeChanged, "decode", _decode),
    (RomChanged, "rom", _rom),
    (BridgeWindowChanged, "window", _window),
    (BusRenumbered, "bus-numbers", _renumbered),
    (VfBarsChanged, "vf-bars", _vf_bars),
    (FunctionReset, "reset", _reset),
)
