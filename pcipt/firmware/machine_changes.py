"""Compare two states of a machine: which functions are new, gone, moved or replaced, and what else differs.

Functions are compared by place and identity, not by address: a bus that got another number changes addresses
and nothing else. What is unknown in one of the two states is not a difference.
"""

import enum
from collections.abc import Callable, Iterable, Mapping

from pcipt import values as attrs
from pcipt.pci import Sbdf
from pcipt.pci.identity import FIELDS, Identity, place_of, same_place
from pcipt.pci.policy.resolve import brief
from pcipt.words import size_text

_PSEUDONYMS = 0xFFFF  # at most so many serial numbers of a recording are masked
_COMPARED = [name for name in FIELDS if name not in ("path", "root", "class", "slot")]


class ChangeKind(enum.Enum):
    """What happened to a function between two states of the machine."""

    NEW = "new"
    GONE = "gone"
    MOVED = "moved"  # the same identity at another place
    RENUMBERED = "renumbered"  # the same place at another address
    REPLACED = "replaced"  # another identity at the same place
    GROUP = "group"
    REGIONS = "regions"
    BARS = "bars"


@attrs.frozen
class Seen:
    """A function in one state of the machine.

    `bars` has the size in bytes of each BAR by its number. `group` has the addresses of all functions that
    can only go to a guest together, this one among them. `regions` are its reserved regions as (base, limit).
    None is unknown.
    """

    identity: Identity
    bars: Mapping[int, int] | None = None
    group: frozenset[Sbdf] | None = None
    regions: frozenset[tuple[int, int]] | None = None


@attrs.frozen
class Change:
    """One difference between two states. `before` and `after` are the addresses; None where it is not there.

    `was` and `now` are the identities, `text` tells the difference in words.
    """

    kind: ChangeKind
    before: Sbdf | None
    after: Sbdf | None
    was: Identity | None
    now: Identity | None
    text: str


State = Mapping[Sbdf, Seen]


def changes_between(before: State, after: State) -> tuple[Change, ...]:
    """Return the differences of two states of a machine, in the order of `ChangeKind`, then by address.

    A function that is moved or replaced is not told as gone and new. If the class of equal functions has
    several members, none of them counts as moved: nobody can tell which is which. Serial numbers are not
    compared if those of one state are masked (`pcipt record`).
    """
    if is_masked(before) or is_masked(after):
        before, after = _without_serials(before), _without_serials(after)
    by_root = _knows_roots(before) and _knows_roots(after)
    pairs = _pairs(before, after, lambda _, seen: place_of(seen.identity, by_root=by_root))
    same = [pair for pair in pairs if _alike(before[pair[0]].identity, after[pair[1]].identity)]
    left, right = _without(before, (old for old, _ in same)), _without(after, (new for _, new in same))
    moved = _pairs(left, right, _key)
    left, right = _without(left, (old for old, _ in moved)), _without(right, (new for _, new in moved))
    replaced = [(old, new) for old, new in pairs if old in left and new in right]
    left, right = _without(left, (old for old, _ in replaced)), _without(right, (new for _, new in replaced))
    found = [
        Change(ChangeKind.NEW, None, at, None, seen.identity, _named(seen)) for at, seen in right.items()
    ]
    found += [
        Change(ChangeKind.GONE, at, None, seen.identity, None, _named(seen)) for at, seen in left.items()
    ]
    for kind, some in ((ChangeKind.MOVED, moved), (ChangeKind.REPLACED, replaced)):
        texts = [_text(kind, before[old], after[new]) for old, new in some]
        found += [_change(kind, before, after, *each) for each in zip(some, texts, strict=True)]
    for pair in same:
        if pair[0] != pair[1]:
            text = f"at {pair[1]}, was at {pair[0]}"
            found.append(_change(ChangeKind.RENUMBERED, before, after, pair, text))
    followed = dict((*same, *moved, *replaced))
    for pair in (*same, *moved):
        found += _inner(before, after, pair, followed)
    order = list(ChangeKind)
    return tuple(sorted(found, key=lambda each: (order.index(each.kind), each.after or each.before)))


def concerns(change: Change, expected: Identity) -> bool:
    """Return True if a function in the place of `expected` is or was what changed."""
    sides = [each for each in (change.was, change.now) if each is not None]
    return any(same_place(expected, side) for side in sides)


def is_masked(state: State) -> bool:
    """Return True if the serial numbers of a state are pseudonyms, which count from 1 (host/report/masks.py).

    A serial number of a vendor begins with the vendor's number; a careless one is small, and `pcipt record`
    masks all or none.
    """
    serials = [seen.identity.serial for seen in state.values() if seen.identity.serial]
    return bool(serials) and all(serial <= _PSEUDONYMS for serial in serials)


def _without_serials(state: State) -> State:
    """Return the state without serial numbers; that a function has none stays."""
    return {
        sbdf: attrs.evolve(seen, identity=attrs.evolve(seen.identity, serial=seen.identity.serial and None))
        for sbdf, seen in state.items()
    }


def _pairs(before: State, after: State, key_of: Callable[[Sbdf, Seen], object]) -> list[tuple[Sbdf, Sbdf]]:
    """Return the functions that have the same key in both states, where only one in each state has it."""
    old, new = _unique(before, key_of), _unique(after, key_of)
    return [(sbdf, new[key]) for key, sbdf in old.items() if key in new]


def _knows_roots(state: State) -> bool:
    """Return True if the names of host bridges are known: older recordings do not have them."""
    return any(seen.identity.root is not None for seen in state.values())


def _unique(state: State, key_of: Callable[[Sbdf, Seen], object]) -> dict[object, Sbdf]:
    """Return the functions by a key; a key that several have, and None, are left out."""
    found: dict[object, list[Sbdf]] = {}
    for sbdf, seen in state.items():
        key = key_of(sbdf, seen)
        if key is not None:
            found.setdefault(key, []).append(sbdf)
    return {key: sbdfs[0] for key, sbdfs in found.items() if len(sbdfs) == 1}


def _key(sbdf: Sbdf, seen: Seen) -> object:
    """Return what a function is known by at another place: its number in the device, ids and serial number.

    A device with many functions takes several buses (ARI, SR-IOV): the distance to its first bus counts.
    """
    path = seen.identity.path
    bus = path.hops[-1][0] if path is not None and len(path.hops) > 1 else 0
    return bus, sbdf.function, *(FIELDS[name](seen.identity) for name in _COMPARED)


def _alike(one: Identity, other: Identity) -> bool:
    """Return True if no field differs that both have."""
    pairs = ((FIELDS[name](one), FIELDS[name](other)) for name in _COMPARED)
    return all(first == second for first, second in pairs if first is not None and second is not None)


def _without(state: State, sbdfs: Iterable[Sbdf]) -> dict[Sbdf, Seen]:
    """Return the state without some functions."""
    out = set(sbdfs)
    return {sbdf: seen for sbdf, seen in state.items() if sbdf not in out}


def _change(kind: ChangeKind, before: State, after: State, pair: tuple[Sbdf, Sbdf], text: str) -> Change:
    old, new = pair
    return Change(kind, old, new, before[old].identity, after[new].identity, text)


def _named(seen: Seen) -> str:
    path = seen.identity.path
    return f"{brief(seen.identity)} at {path}" if path is not None else brief(seen.identity)


def _text(kind: ChangeKind, was: Seen, now: Seen) -> str:
    """Return in words what moved where, or what replaced what."""
    if kind is ChangeKind.MOVED:
        return f"{brief(now.identity)} from {was.identity.path} to {now.identity.path}"
    same = brief(was.identity) == brief(now.identity)
    which = " (another serial number)" if same else ""
    return f"{brief(now.identity)} in place of {brief(was.identity)}{which} at {now.identity.path}"


def _inner(
    before: State, after: State, pair: tuple[Sbdf, Sbdf], followed: Mapping[Sbdf, Sbdf]
) -> list[Change]:
    """Return what else differs of a function that is in both states: BARs, group, reserved regions.

    `followed` has the later address of each earlier one.
    """
    was, now = before[pair[0]], after[pair[1]]
    found = []
    if was.bars is not None and now.bars is not None and was.bars != now.bars:
        numbers = sorted({*was.bars, *now.bars})
        sizes = ((each, was.bars.get(each), now.bars.get(each)) for each in numbers)
        texts = [f"BAR {each} {_size(new)}, was {_size(old)}" for each, old, new in sizes if old != new]
        found.append(_change(ChangeKind.BARS, before, after, pair, "; ".join(texts)))
    group = frozenset() if was.group is None else frozenset(followed.get(sbdf, sbdf) for sbdf in was.group)
    left = any(sbdf not in followed for sbdf in was.group or ())
    if was.group is not None and now.group is not None and (left or group != now.group):
        text = f"{len(now.group)} can only go together, were {len(was.group)}"
        if len(was.group) == len(now.group):
            text = f"{len(now.group)} functions can only go together, and some of them have changed"
        found.append(_change(ChangeKind.GROUP, before, after, pair, text))
    if was.regions is not None and now.regions is not None and was.regions != now.regions:
        text = f"{_regions(now.regions)}, was {_regions(was.regions)}"
        found.append(_change(ChangeKind.REGIONS, before, after, pair, text))
    return found


def _size(size: int | None) -> str:
    return "none" if size is None else size_text(size)


def _regions(regions: frozenset[tuple[int, int]]) -> str:
    return ", ".join(f"{base:#x}-{limit:#x}" for base, limit in sorted(regions)) or "none"
