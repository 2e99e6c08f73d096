"""Find the one function that a text names by address or PCI path, and read it from the machine."""

import difflib
from contextlib import suppress

from pcipt.cli.machine.source import Source
from pcipt.errors import AddressError, NoSuchDeviceError, PciptError
from pcipt.host.files import Depth
from pcipt.pci import Function, PciPath, Sbdf, SlotFilter, parse_target


def find_function(source: Source, text: str) -> Function:
    """Return the one function that `text` names by address or PCI path, read and decoded in full.

    Raises: AddressError if the text is malformed or names several functions; NoSuchDeviceError if the machine
            has no such function; InputError if the machine cannot be read.
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

    The result need not exist on the machine.

    Raises: AddressError if the text is malformed. The error suggests the address on this machine that is most
            similar to the text, if there is a similar one and the machine can be read.
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

    An address of segment 0 is compared twice: written with the segment `0000:`, and written without it.
    """
    written = {name.removeprefix("0000:"): name for name in addresses} | {name: name for name in addresses}
    typed = text[: max(map(len, written), default=0) + 2].lower()
    return tuple(written[near] for near in difflib.get_close_matches(typed, sorted(written), n=1))


def _decoded(source: Source, sbdf: Sbdf, depth: Depth) -> Function | None:
    """Read and decode one function; return None if the machine does not have it.

    Raises: InputError if the machine cannot be read.
    """
    return source.machine(depth, lambda other: other == sbdf).functions.get(sbdf)


def _single(source: Source, text: str, chosen: SlotFilter) -> Sbdf:
    """Return the address of the only function that the slot filter `chosen` matches.

    `text` is the user's text.

    Raises: AddressError if the filter matches several functions; NoSuchDeviceError if it matches none;
            InputError if the machine cannot be read.
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
    """Return the function at a PCI path, decoded in full. `text` is the user's text.

    The path is followed bridge by bridge from the root bus that its first hop names. If that does not lead to
    the function, all functions are searched for one with this path.

    Raises: NoSuchDeviceError if no function has the path; it suggests the last function that was found along
            the path. InputError if the machine cannot be read.
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
