"""Which functions have other read-only registers than those that Xen handles, and what is read of them then.

A reading with another shape (`remap/vpci/shape.py`) is not believed: the registers of the reading before it
stay, and the function is in `Memory.altered` until it has its shape again. A function with another directory
in sysfs is another one: Linux has told Xen of it, and Xen has read it anew. If the number of the directory is
not known, another device may have taken the place: then each reading is believed.
"""

from collections.abc import Iterable, Mapping

import attrs

from pcipt.engine.memory import Memory
from pcipt.pci import RawFunction, Sbdf
from pcipt.remap.steps import Read
from pcipt.remap.view import XenView
from pcipt.remap.vpci.shape import Altered, changes, shape_of
from pcipt.xen.releases import VPCI_BUILT_AT_ASSIGN, Version


def believed(raw: RawFunction, before: RawFunction | None, memory: Memory, place: str | None) -> RawFunction:
    """Return a reading as it may be believed; update `memory.shapes` and `memory.altered` for its function.

    `before` is the reading before it, `place` the place of the function then. If the shape is another one,
    the registers are those of `before`; if those had another shape too, the function has no registers.
    """
    if before is not None and (
        raw.instance is None or (before.instance, before.ids) != (raw.instance, raw.ids)
    ):
        memory.forget_shape(raw.sbdf)  # it is another device, or nobody knows whether it is the same
        return raw
    shape = memory.shapes.get(raw.sbdf)
    now = shape_of(raw) if shape is not None else None
    if shape is None or now is None:
        return raw
    what = changes(shape, now)
    if not what:
        memory.altered.pop(raw.sbdf, None)
        return raw
    listed = memory.ledger.roster.functions.get(place or "")
    pages = tuple(frames for _, frames in listed.pages) if listed is not None else ()
    memory.altered[raw.sbdf] = Altered(what, pages)
    last = shape_of(before) if before is not None else None
    return attrs.evolve(raw, config=before.config if before and last and not changes(shape, last) else None)


def note_shapes(
    memory: Memory,
    raws: Mapping[Sbdf, RawFunction],
    view: XenView,
    version: Version,
    functions: Iterable[Sbdf],
) -> list[Read]:
    """Note the shape of each of these functions that Xen handled when it was read last (`raws`).

    The shape of a function that Xen does not handle any more is forgotten, in the roster too: return the
    steps that must be on disk before Xen is told of it again. Xen must just have been asked about them
    (`view`), after they were read. From Xen 4.19 on vPCI reads a function anew when it returns to dom0;
    earlier it keeps what it read.
    Source: Xen drivers/passthrough/pci.c (assign_device, deassign_device).
    """
    elsewhere = () if VPCI_BUILT_AT_ASSIGN.of(version) else view.elsewhere.keys() | view.quarantined
    steps: list[Read] = []
    for sbdf in functions:
        raw, handled = raws.get(sbdf), view.in_dom0(sbdf) or sbdf in elsewhere
        if raw is None or not handled:
            steps += _forget(memory, sbdf)
        elif sbdf not in memory.shapes and (shape := shape_of(raw)) is not None:
            memory.shapes[sbdf] = shape
    return steps


def _forget(memory: Memory, sbdf: Sbdf) -> list[Read]:
    """Forget the shape of a function; return the step that does so in the roster, if the roster has it."""
    if sbdf not in memory.shapes:
        return []
    memory.forget_shape(sbdf)
    roster = memory.ledger.roster.functions
    found = [place for place, listed in roster.items() if listed.sbdf == sbdf and listed.shape is not None]
    steps = [Read(place, attrs.evolve(roster[place], shape=None)) for place in found]
    for step in steps:
        step.apply(memory.ledger)
    return steps
