"""Finds the one function that a text names, on a machine that is read for it."""

import difflib
from contextlib import suppress

from pcipt.cli.machine.source import Source
from pcipt.errors import AddressError, NoSuchDeviceError, PciptError
from pcipt.host.files import Depth
from pcipt.pci import Function, PciPath, Sbdf, SlotFilter, parse_target


def find_function(source: Source, text: str) -> Function:
    """Find the one function that a text names.

    Raises: AddressError where it is malformed or names several; NoSuchDeviceError where there is none.
    """
    target = target_of(source, text)
    if isinstance(target, PciPath):
        return _find_path(source, text, target)
    if isinstance(target, SlotFilter):
        target = _single(source, text, target)
    function = _decoded(source, target, Depth.FULL)
    if function is None:
        raise source.no_such_device(str(target), target)
    return function


def target_of(source: Source, text: str) -> Sbdf | SlotFilter | PciPath:
    """Parse what names a function or several.

    Raises: AddressError with the function that looks most alike; one that is malformed is often a slip.
    """
    try:
        return parse_target(text)
    except AddressError as error:
        nearest: tuple[str, ...] = ()
        # Where the machine cannot be read, the text is wrong all the same.
        with suppress(PciptError, OSError):
            nearest = _alike(text, [str(sbdf) for sbdf in source.addresses()])
        raise AddressError(error.text, error.field, error.why, nearest) from error


def _alike(text: str, addresses: list[str]) -> tuple[str, ...]:
    """Find the address that looks most alike, written with its segment or, where that is zero, without."""
    written = {name.removeprefix("0000:"): name for name in addresses} | {name: name for name in addresses}
    typed = text[: max(map(len, written), default=0) + 2].lower()
    return tuple(written[near] for near in difflib.get_close_matches(typed, sorted(written), n=1))


def _decoded(source: Source, sbdf: Sbdf, depth: Depth) -> Function | None:
    return source.machine(depth, lambda other: other == sbdf).functions.get(sbdf)


def _single(source: Source, text: str, chosen: SlotFilter) -> Sbdf:
    matching = [sbdf for sbdf in source.addresses() if chosen.matches(sbdf)]
    if len(matching) > 1:
        shown = ", ".join(str(sbdf) for sbdf in matching[:4]) + (", …" if len(matching) > 4 else "")
        raise AddressError(text, "function", f"it names {len(matching)} functions ({shown}); one is expected")
    if not matching:
        near = Sbdf(chosen.segment or 0, chosen.bus or 0, chosen.device or 0, chosen.function or 0)
        raise source.no_such_device(text, near)
    return matching[0]


def _find_path(source: Source, text: str, path: PciPath) -> Function:
    """Walk down the path, bus by bus; where numbers contradict each other, look at every function."""
    bus, near = 0, None
    for relative, device, number in path.hops:
        sbdf = Sbdf(path.segment, bus + relative, device, number)
        function = _decoded(source, sbdf, Depth.HEADER)
        if function is None:
            break
        near, bus = sbdf, function.bridge.secondary if function.bridge is not None else 0
        if function.path == path:
            return _decoded(source, sbdf, Depth.FULL) or function
    for function in source.machine(Depth.HEADER).functions.values():
        if function.path == path:
            return _decoded(source, function.sbdf, Depth.FULL) or function
    raise NoSuchDeviceError(text, (str(near),) if near is not None else ())
