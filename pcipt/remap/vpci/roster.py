"""The functions of a PVH dom0 as they were read last, and how far the kernel's log was followed. Pure.

vPCI unmaps nothing of a function that leaves. While no service runs, nobody sees a function leave, or
another one come to its place; what is kept here shows it at the next start. A function that came and left
meanwhile is in the kernel's log only (`pci.notation.kernel_log`).
"""

from typing import Any

import attrs

from pcipt.errors import MalformedError
from pcipt.pci import Frames, Function, Ids, Sbdf
from pcipt.remap.json_fields import FieldError, Fields, bar_number, frames, function, items, number, text
from pcipt.remap.vpci.hazards import pages_of_bars

_MOST = (1 << 64) - 1
_UNKNOWN = "?"


@attrs.frozen
class Listed:
    """A function as it was read last.

    `ids` are vendor, device, subsystem vendor and subsystem device as Linux read them when it found the
    function, in hexadecimal, "?" for what is not known. `instance` is the number of its directory in sysfs
    (`RawFunction.instance`). `pages` are the pages of its memory BARs that have an address, whether or not
    they decode: vPCI may have mapped them since. There are none for a virtual function, and for one in a
    segment that Xen cannot name: vPCI maps none of theirs. `shape` is that of its registers when Xen handled
    it (`shape.shape_of`), None if Xen did not.
    """

    sbdf: Sbdf
    ids: str
    instance: int | None = None
    pages: tuple[tuple[int, Frames], ...] = ()
    shape: str | None = None

    def is_other(self, now: "Listed") -> bool:
        """Return True if the function `now`, which is at the same place, is not this one any more.

        A device that was taken out and put in again is another one, too: vPCI has forgotten it meanwhile.
        """
        if self.instance is not None and now.instance is not None:
            return self.instance != now.instance
        pairs = zip(self.ids.split(":"), now.ids.split(":"), strict=False)
        return any(before != after and _UNKNOWN not in (before, after) for before, after in pairs)


@attrs.define
class Roster:
    """The functions as they were read last, by place, and how far the kernel's log was followed.

    All that happened up to line `line` of the log and up to message `uevents` of the kernel is in the ledger
    and in `functions`. Both are None if they were not followed yet.
    """

    functions: dict[str, Listed] = attrs.Factory(dict)
    line: int | None = None
    uevents: int | None = None

    def copy(self) -> "Roster":
        """Return a copy. Changes of the copy do not change this object."""
        return Roster(dict(self.functions), self.line, self.uevents)

    def knows_from(self, first: int | None, last: int | None, uevents: int | None) -> bool:
        """Return True if nothing can have come and left unseen, by a reading of the kernel's log.

        `first`, `last` and `uevents` are those of `LogReading`; the reading begins with the oldest line. The
        log must reach back to `line`, or the kernel must have sent no message about any device since. A log
        that was not followed yet in this boot is taken as it is.
        """
        if uevents is not None and uevents == self.uevents:
            return True
        if self.line is None and self.uevents is None:
            return True
        if self.line is None or last is None:
            return False
        return first is None or first <= self.line + 1


def listed_from(
    found: Function, instance: int | None, before: Listed | None = None, shape: str | None = None
) -> Listed:
    """Return a function as it is kept. If it does not answer, it has the pages of `before`."""
    maps = found.physfn is None and found.sbdf.fits_xen
    pages = tuple(pages_of_bars(found)) if maps else ()
    if found.answers is False and before is not None:
        pages = before.pages
    return Listed(found.sbdf, _ids(found.ids), instance, pages, shape)


def listed_to_json(listed: Listed) -> dict[str, object]:
    """Return a function as a JSON object: "sbdf", "ids", "instance" unless it is None, "pages" as lists of
    BAR number, first frame and number of pages, and "shape" unless it is None.
    """
    told: dict[str, object] = {"sbdf": str(listed.sbdf), "ids": listed.ids}
    if listed.instance is not None:
        told["instance"] = listed.instance
    told["pages"] = [[bar, pages.start, pages.count] for bar, pages in listed.pages]
    if listed.shape is not None:
        told["shape"] = listed.shape
    return told


def listed_from_json(value: object) -> Listed:
    """Return the function that `listed_to_json` wrote.
    Raises: ValueError, which names the field, if a field is missing, not known, or has no valid value.
    """
    given = Fields(value)
    listed = Listed(
        given.take("sbdf", function),
        given.take("ids", text),
        given.find("instance", _count, None),
        tuple(given.take("pages", lambda told: items(told, _pages))),
        given.find("shape", text, None),
    )
    given.end()
    return listed


def roster_to_json(roster: Roster) -> dict[str, object]:
    """Return a roster as a JSON object: "functions" by place, "line" and "uevents" unless they are None."""
    followed = {"line": roster.line, "uevents": roster.uevents}
    functions = {place: listed_to_json(each) for place, each in sorted(roster.functions.items())}
    return {"functions": functions, **{name: at for name, at in followed.items() if at is not None}}


def roster_from_json(value: object) -> Roster:
    """Return the roster that `roster_to_json` wrote.
    Raises: MalformedError, which names the field, if `value` is anything else.
    """
    try:
        given = Fields(value)
        functions = given.take("functions", _object)
        line, uevents = given.find("line", _count, None), given.find("uevents", _count, None)
        given.end()
        return Roster({text(at): listed_from_json(each) for at, each in functions.items()}, line, uevents)
    except ValueError as error:
        raise MalformedError("mappings", 0, f"no functions: {error}") from error


def _count(value: Any) -> int | None:
    """Return a number of the kernel, which counts from 0, or None. Raises: FieldError if it is neither."""
    return None if value is None else number(value, 0, _MOST)


def _object(value: Any) -> dict[str, Any]:
    """Return a JSON object. Raises: FieldError if `value` is not one."""
    if not isinstance(value, dict):
        raise FieldError(f"no object: {value!r}")
    return value


def _pages(value: Any) -> tuple[int, Frames]:
    """Return a BAR number and pages from a list. Raises: ValueError if `value` is no such list."""
    bar, *pages = items(value, lambda each: each)
    return bar_number(bar), frames(pages)


def _ids(ids: Ids) -> str:
    """Return the ids that tell one device from another, as text."""
    told = (ids.vendor, ids.device, ids.subsystem_vendor, ids.subsystem_device)
    return ":".join(_UNKNOWN if each is None else f"{each:04x}" for each in told)
