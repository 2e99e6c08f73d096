"""Find the functions that a text names by address, set of addresses or PCI path.

`check`, `show`, `list`, `release` and `reclaim` name functions in the same way, by this module. What another
program prints is taken too: see `pcipt/pci/notation/spellings.py`.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

from pcipt.cli.machine.source import Source, Wanted
from pcipt.errors import AddressError, NoSuchDeviceError, PciptError
from pcipt.hints import TYPE_CHECKING
from pcipt.host.files import Depth
from pcipt.pci import PciPath, Sbdf, SlotFilter, Target, parse_slot, parse_target
from pcipt.pci.address import names_functions_of_one_device

if TYPE_CHECKING:
    from pcipt.pci import Function, Machine

HIDE = "xen-pciback.hide="
SBDF_HELP = "address, PCI path, or a set of addresses: 03:00.* is a device, 03: a bus, * all functions"


def find_function(source: Source, text: str) -> "Function":
    """Return the one function that `text` names by address or PCI path, read and decoded in full.

    Raises: AddressError if the text is malformed or names several functions; NoSuchDeviceError if the machine
            has no such function; InputError if the machine cannot be read.
    """
    found = find_functions(source, text)
    if len(found) > 1:
        named = [str(function.sbdf) for function in found]
        shown = ", ".join(named[:4]) + (", …" if len(named) > 4 else "")
        raise AddressError(text, "function", f"it names {len(named)} functions ({shown}); one is expected")
    return found[0]


def find_functions(source: Source, text: str) -> "list[Function]":
    """Return the functions that `text` names, read and decoded in full, in address order; at least one.

    Raises: AddressError if the text is malformed; NoSuchDeviceError if the machine has no such function;
            InputError if the machine cannot be read.
    """
    target = target_of(source, text)
    if isinstance(target, PciPath):
        return [_find_path(source, text, target)]
    if isinstance(target, SlotFilter):
        machine = source.machine(Depth.FULL, target.matches)
        found = [function for sbdf, function in machine.functions.items() if target.matches(sbdf)]
    else:
        function = _decoded(source, target, Depth.FULL)
        found = [function] if function is not None else []
    if not found:
        raise no_such_device(source, text, target)
    return found


def chosen_functions(
    source: Source, machine: "Machine", texts: Sequence[str], *, single: bool = False
) -> list[Sbdf]:
    """Return the functions that the arguments `texts` name, each once, in the order of the arguments.

    A text is an address, a set of addresses, a PCI path, or `xen-pciback.hide=(…)(…)` with several of them.
    With `single`, the only sets are those of all functions of one device, written with `.*`: a command that
    takes functions away must not take more than was meant.

    Raises: AddressError if a text is malformed, or is a set that is not taken; NoSuchDeviceError if a text
            names no function of `machine`.
    """
    targets = targets_of(source, texts)
    if single:
        for text, target in targets:
            _refuse_sets(source, machine, text, target)
    return chosen_of(source, machine, targets)


def targets_of(source: Source, texts: Sequence[str]) -> list[tuple[str, Target]]:
    """Return a pair for each part of the arguments `texts`, in their order: the part, and what it names
    (parsed).

    Raises: AddressError if a part is malformed.
    """
    parts = [part for text in texts for part in _hidden(text)]
    return [(text, target_of(source, text)) for text in parts]


def chosen_of(source: Source, machine: "Machine", targets: Iterable[tuple[str, Target]]) -> list[Sbdf]:
    """Return the functions that the parsed arguments `targets` name, each once, in the order of `targets`.

    Raises: NoSuchDeviceError if an argument names no function of `machine`.
    """
    found = (_found(source, machine, text, target) for text, target in targets)
    return list(dict.fromkeys(sbdf for each in found for sbdf in each))


def wanted_of(source: Source, text: str) -> Wanted:
    """Return a test for the functions that `text` names: by a filter, as lspci's option -s takes it, or by a
    PCI path.

    Raises: AddressError if the text is malformed; NoSuchDeviceError if no function has the path; InputError
            if the machine cannot be read.
    """
    target = target_of(source, text)
    if not isinstance(target, PciPath):
        return parse_slot(text).matches
    sbdf = _find_path(source, text, target).sbdf
    return lambda other: other == sbdf


def require_set(source: Source, text: str) -> None:
    """Raise NoSuchDeviceError unless `text`, which fits no function, is a set of addresses that may be empty.

    A text that names one function is an error, and so is one that seems to be meant for another function: the
    colon typed for the point. Any other set is empty, as for lspci's option -s.
    """
    chosen = parse_slot(text)
    meant = _meant(source, text)
    if meant or None not in (chosen.bus, chosen.device, chosen.function):
        raise NoSuchDeviceError(text, meant)


def target_of(source: Source, text: str) -> Target:
    """Parse a text that names one function or several: an address, a set of addresses or a PCI path.

    The result need not exist on the machine.

    Raises: AddressError if the text is malformed. The error suggests the functions of this machine that the
            text may have meant, if there are any and the machine can be read.
    """
    try:
        return parse_target(text)
    except AddressError as error:
        raise suggested(source, error) from error


def suggested(source: Source, error: AddressError) -> AddressError:
    """Return (do not raise) the error with the functions of the machine that its text may have meant.

    If the machine cannot be read, there is no suggestion.
    """
    meant: tuple[str, ...] = ()
    with suppress(PciptError, OSError):
        meant = _meant(source, error.text)
    return AddressError(error.text, error.field, error.why, meant)


def no_such_device(source: Source, text: str, target: Target) -> NoSuchDeviceError:
    """Return (do not raise) the error for the missing function or set `text`, parsed as `target`.

    The error suggests the functions of the machine that the text may have meant.

    Raises: InputError if the machine cannot be read.
    """
    shown = str(target) if isinstance(target, Sbdf) else text
    return NoSuchDeviceError(shown, _meant(source, text))


def _meant(source: Source, text: str) -> tuple[str, ...]:
    """Return the addresses of functions that `text` may have meant.

    Raises: InputError if the machine cannot be read.
    """
    from pcipt.pci.notation.meant import suggestions  # only an error needs it

    return tuple(map(str, suggestions(source.addresses(), text)))


def _refuse_sets(source: Source, machine: "Machine", text: str, target: Target) -> None:
    """Raise AddressError if `text`, parsed as `target`, names more than the functions of one device.

    If nothing of the machine fits it, the error suggests what may have been meant: the colon typed for the
    point makes a set of a function.
    """
    if not isinstance(target, SlotFilter):
        return
    if not names_functions_of_one_device(text):
        why = "it names a set; expected one function, or all functions of a device, as in 03:00.*"
        error = AddressError(text, "function", why)
        raise error if any(map(target.matches, machine.functions)) else suggested(source, error)
    segments = {sbdf.segment for sbdf in machine.functions if target.matches(sbdf)}
    if len(segments) > 1:
        shown = ", ".join(f"{segment:04x}" for segment in sorted(segments))
        raise AddressError(text, "segment", f"segments {shown} have that device: give the segment")


def _hidden(text: str) -> list[str]:
    """Split a text "(…)(…)" into its parts "(…)", without `xen-pciback.hide=` if the text begins with that.

    A text that does not begin with a parenthesis is the only part.

    Raises: AddressError if the value of hide= does not begin with a parenthesis: xen-pciback refuses it.
    Source: linux drivers/xen/xen-pciback/pci_stub.c (pcistub_init).
    """
    body = text.removeprefix(HIDE)
    if body != text and not body.startswith("("):
        raise AddressError(text, "address", "xen-pciback refuses addresses without parentheses")
    return re.split(r"(?<=\))(?=\()", body) if body.startswith("(") else [body]


def _found(source: Source, machine: "Machine", text: str, target: Target) -> list[Sbdf]:
    """Return the functions that one argument names. `text` is the argument, `target` the parsed argument.

    Raises: NoSuchDeviceError if `machine` has no such function.
    """
    if isinstance(target, Sbdf):
        found = [target] if target in machine.functions else []
    elif isinstance(target, SlotFilter):
        found = [sbdf for sbdf in machine.functions if target.matches(sbdf)]
    else:
        found = [each.sbdf for each in machine.functions.values() if each.path == target]
    if not found:
        raise no_such_device(source, text, target)
    return found


def _decoded(source: Source, sbdf: Sbdf, depth: Depth) -> "Function | None":
    """Read and decode one function; return None if the machine does not have it.

    Raises: InputError if the machine cannot be read.
    """
    return source.machine(depth, lambda other: other == sbdf).functions.get(sbdf)


def _find_path(source: Source, text: str, path: PciPath) -> "Function":
    """Return the function at a PCI path, decoded in full. `text` is the user's text.

    The path is followed bridge by bridge from the root bus that its first hop names. If that does not lead to
    the function, all functions are searched for one with this path.

    Raises: NoSuchDeviceError if no function has the path. InputError if the machine cannot be read.
    """
    bus = 0
    for relative, device, number in path.hops:
        sbdf = Sbdf(path.segment, bus + relative, device, number)
        function = _decoded(source, sbdf, Depth.HEADER)
        if function is None:
            break
        bus = function.bridge.secondary if function.bridge is not None else 0
        if function.path == path:
            return _decoded(source, sbdf, Depth.FULL) or function
    for function in source.machine(Depth.HEADER).functions.values():
        if function.path == path:
            return _decoded(source, function.sbdf, Depth.FULL) or function
    raise NoSuchDeviceError(text)
