"""Find the functions that the entries of the policy mean on a machine: the expected one, or none.

The place decides where to look, and the identity whether it is the right function. A function that is not
what was expected is never taken for it, and no other function is taken in its place.
"""

import enum
from collections.abc import Iterable, Mapping

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.finding import Finding
from pcipt.pci.identity import (
    FIELDS,
    Difference,
    Identity,
    Place,
    differences,
    place_of,
    shown_difference,
)
from pcipt.pci.policy.entries import Entry

MISMATCH = "policy-mismatch"
_BRIEF = ("vendor", "device", "subsystem_vendor", "subsystem_device", "revision")


class State(enum.Enum):
    """What is at the place of an entry: the expected function, another one, or none."""

    PRESENT = "present"
    MISMATCH = "mismatch"
    ABSENT = "absent"


@attrs.frozen
class Resolution:
    """What an entry means now.

    `sbdf` is the function at the place, also one that is not what was expected; None if there is none.
    `differences` are those of a mismatch. `found` is the identity of that function. `moved` is a function at
    another place that has the serial number and the ids which were expected; None if there is no such
    function, or no serial number to know it by.
    """

    entry: Entry
    state: State
    sbdf: Sbdf | None = None
    found: Identity | None = None
    differences: tuple[Difference, ...] = ()
    moved: Sbdf | None = None

    @property
    def kept(self) -> Sbdf | None:
        """Return the function that is kept for guests; None if the entry binds none."""
        return self.sbdf if self.state is State.PRESENT else None


def resolve(entries: Iterable[Entry], machine: Mapping[Sbdf, Identity]) -> tuple[Resolution, ...]:
    """Return what each entry means, in their order. `machine` has the identity of each function.

    If two functions are at one place (a damaged machine), the entry counts as absent: neither is certain.
    """
    places: dict[tuple[bool, Place], list[Sbdf]] = {}
    serials: dict[int, list[Sbdf]] = {}
    for sbdf, identity in machine.items():
        for by_root in (False, True):
            place = place_of(identity, by_root=by_root)
            if place is not None:
                places.setdefault((by_root, place), []).append(sbdf)
        if identity.serial:
            serials.setdefault(identity.serial, []).append(sbdf)
    return tuple(_resolve(entry, machine, places, serials) for entry in entries)


def _resolve(
    entry: Entry,
    machine: Mapping[Sbdf, Identity],
    places: Mapping[tuple[bool, Place], list[Sbdf]],
    serials: Mapping[int, list[Sbdf]],
) -> Resolution:
    """Return what one entry means. `places` and `serials` are indexes of `machine`."""
    expected = entry.expected
    by_root = expected.root is not None
    place = place_of(expected, by_root=by_root)
    at = places.get((by_root, place), []) if place is not None else []
    sbdf = at[0] if len(at) == 1 else None
    if sbdf is not None:
        wrong = differences(expected, machine[sbdf])
        if not wrong:
            return Resolution(entry, State.PRESENT, sbdf, machine[sbdf])
        moved = _moved(expected, machine, serials, sbdf)
        return Resolution(entry, State.MISMATCH, sbdf, machine[sbdf], wrong, moved)
    return Resolution(entry, State.ABSENT, moved=_moved(expected, machine, serials, None))


def _moved(
    expected: Identity,
    machine: Mapping[Sbdf, Identity],
    serials: Mapping[int, list[Sbdf]],
    here: Sbdf | None,
) -> Sbdf | None:
    """Return the one function elsewhere that has the expected serial number, ids and function number."""
    if not expected.serial or expected.path is None:
        return None
    anywhere = attrs.evolve(expected, path=None, root=None)
    number = expected.path.hops[-1][2]
    found = [
        sbdf
        for sbdf in serials.get(expected.serial, ())
        if sbdf != here and sbdf.function == number and not differences(anywhere, machine[sbdf])
    ]
    return found[0] if len(found) == 1 else None


def findings_of(resolutions: Iterable[Resolution]) -> list[tuple[Sbdf, Finding]]:
    """Return the finding `policy-mismatch` for each function that is not what an entry expected."""
    return [
        (each.sbdf, Finding(MISMATCH, mismatch_text(each)))
        for each in resolutions
        if each.state is State.MISMATCH and each.sbdf is not None
    ]


def mismatch_text(resolution: Resolution, *, secret: bool = False) -> str:
    """Return what is wrong at the place of an entry, with both identities, and what cures it.

    Serial numbers are told only with `secret`.
    """
    entry = resolution.entry
    wrong = ", ".join(shown_difference(each, secret=secret) for each in resolution.differences)
    found = resolution.found or Identity()
    return (
        f"the policy keeps {brief(entry.expected)} at {entry.path} for {kept_for(entry)}, but "
        f"{brief(found)} is at this place ({wrong}). So pcipt does not keep or release this "
        f"device{moved_text(resolution)}; if this device is the right one, run `pcipt policy remove "
        f"{entry.path}` and `pcipt policy add {entry.path}`"
    )


def moved_text(resolution: Resolution) -> str:
    """Return where the expected function is now, as the end of a text; empty if that is not known."""
    return f"; the expected function is now at {resolution.moved}" if resolution.moved is not None else ""


def kept_for(entry: Entry) -> str:
    """Return for whom an entry keeps a function, in words."""
    return f"guest {entry.guest}" if entry.guest else "guests"


def brief(identity: Identity) -> str:
    """Return the ids of an identity as words: 8086:1533, subsystem 15d9:1533, revision 03.

    An unknown vendor or device is ????; what else is unknown is left out.
    """
    texts = {name: FIELDS[name](identity) for name in _BRIEF}
    known = {name: text.removeprefix("0x") for name, text in texts.items() if text is not None}
    words = [f"{known.get('vendor', '????')}:{known.get('device', '????')}"]
    if "subsystem_vendor" in known and "subsystem_device" in known:
        words.append(f"subsystem {known['subsystem_vendor']}:{known['subsystem_device']}")
    if "revision" in known:
        words.append(f"revision {known['revision']}")
    return ", ".join(words)
