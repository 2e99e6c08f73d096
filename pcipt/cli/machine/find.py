"""Find the one function that a text names by address or PCI path, and read it from the machine."""

import difflib
from contextlib import suppress

from pcipt.cli.machine.source import Source
from pcipt.errors import AddressError, NoSuchDeviceError, PciptError
from pcipt.host.files import Depth
from pcipt.pci import Function, PciPath, Sbdf, SlotFilter, parse_target


def find_function(source: Source, text: str) -> Function:
    """Return the one function that `text` names, decoded in full.

    Raises: AddressError if the text is malformed or names several functions; NoSuchDeviceError if the machine
            has no such function.
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
    """Parse a text that names one function or several: an address, a slot filter or a PCI path.

    Raises: AddressError if it is malformed, with the address on this machine that is most similar to it,
            because a malformed address is often a typing error.
    """
    try:
        return parse_target(text)
    except AddressError as error:
        nearest: tuple[str, ...] = ()
        # If the machine cannot be read, there is no suggestion.
        with suppress(PciptError, OSError):
            nearest = _alike(text, [str(sbdf) for sbdf in source.addresses()])
        raise AddressError(error.text, error.field, error.why, nearest) from error


def _alike(text: str, addresses: list[str]) -> tuple[str, ...]:
    """Return the address most similar to `text`, as a tuple of one; an empty tuple if none is similar.

    An address of segment 0 is compared with and without its segment.
    """
    written = {name.removeprefix("0000:"): name for name in addresses} | {name: name for name in addresses}
    typed = text[: max(map(len, written), default=0) + 2].lower()
    return tuple(written[near] for near in difflib.get_close_matches(typed, sorted(written), n=1))


def _decoded(source: Source, sbdf: Sbdf, depth: Depth) -> Function | None:
    """Read and decode one function; return None if the machine does not have it."""
    return source.machine(depth, lambda other: other == sbdf).functions.get(sbdf)


def _single(source: Source, text: str, chosen: SlotFilter) -> Sbdf:
    """Return the only function that a slot filter matches.

    Raises: AddressError if it matches several; NoSuchDeviceError if it matches none.
    """
    matching = [sbdf for sbdf in source.addresses() if chosen.matches(sbdf)]
    if len(matching) > 1:
        shown = ", ".join(str(sbdf) for sbdf in matching[:4]) + (", …" if len(matching) > 4 else "")
        raise AddressError(text, "function", f"it names {len(matching)} functions ({shown}); one is expected")
    if not matching:
        near = Sbdf(chosen.segment or 0, chosen.bus or 0, chosen.device or 0, chosen.function or 0)
        raise source.no_such_device(text, near)
    return matching[0]


def _find_path(source: Source, text: str, path: PciPath) -> Function:
    """Return the function at a PCI path.

    Follow the path bus by bus; if that fails, compare all functions' paths.

    Raises: NoSuchDeviceError with the last function that was found along the path.
    """
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
