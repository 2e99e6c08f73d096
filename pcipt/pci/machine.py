"""Hold a machine: all its functions, and which function lies below which bridge."""

from collections.abc import Iterable, Iterator, Mapping

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.finding import Finding
from pcipt.pci.function import Function, decode_function
from pcipt.pci.raw import RawFunction
from pcipt.pci.space.translation import Differences, Translations, differences, root_of
from pcipt.pci.topology import place_functions


@attrs.frozen
class Machine:
    """The functions of a machine by address, in the order segment, bus, device, function.

    If an `Inventory` owns the machine, `functions` changes when the inventory is updated.
    """

    functions: Mapping[Sbdf, Function]
    _below: dict[Sbdf | None, list[Function]] = attrs.field(factory=dict, eq=False, repr=False)

    def parent_of(self, function: Function) -> Function | None:
        """Return the bridge directly above a function; None on a root bus, or if the bridge is missing."""
        return self.functions.get(function.parent) if function.parent is not None else None

    def above(self, function: Function) -> Iterator[Function]:
        """Yield the bridges above a function, the nearest first; parents form no loop (`place_functions`)."""
        at = self.parent_of(function)
        while at is not None:
            yield at
            at = self.parent_of(at)

    def children(self, bridge: Sbdf | None) -> list[Function]:
        """Return the functions directly below `bridge`, in address order. For None, return the functions
        whose `parent` is None.

        The list is empty if no function is below `bridge`, or if `bridge` is not in the machine. A walk that
        begins at None and descends visits each function once.
        """
        if not self._below:
            below: dict[Sbdf | None, list[Function]] = {}
            for function in self.functions.values():
                below.setdefault(function.parent, []).append(function)
            self._below.update(below)
        return list(self._below.get(bridge, ()))

    @property
    def findings(self) -> list[tuple[Sbdf, Finding]]:
        """Return every finding of every function, with the address of the function, in address order."""
        return [(f.sbdf, finding) for f in self.functions.values() for finding in f.findings]


def decode_machine(raws: Iterable[RawFunction]) -> Machine:
    """Return the decoded machine. The parents, the paths, the BARs of virtual functions and the shifts of
    translating host bridges depend on other functions and are computed here too.

    Shape:  one function for each address. If several raws have the same address, the first is used and gets
            the finding `address-repeated`.
    """
    by_address = raws_by_address(raws)
    positions = place_functions(by_address)
    functions = {
        sbdf: decode_function(raw, positions[sbdf]) for sbdf, raw in by_address.items() if raw.physfn is None
    }
    shifts = Translations()
    for sbdf, function in functions.items():
        shifts.put(sbdf, root_of(function.path), differences_of(function, by_address[sbdf]))
    moved = shifts.settle()
    for sbdf, function in functions.items():
        root = root_of(function.path)
        if root in moved:
            functions[sbdf] = decode_function(by_address[sbdf], positions[sbdf], shift=shifts.shift_of(root))
    if len(functions) == len(by_address):
        return Machine(functions)
    return Machine(
        {
            sbdf: decode_function(
                raw,
                positions[sbdf],
                functions.get(raw.physfn),
                shifts.shift_of(root_of(positions[sbdf].path)),
            )
            if raw.physfn is not None
            else functions[sbdf]
            for sbdf, raw in by_address.items()
        }
    )


def differences_of(function: Function, raw: RawFunction) -> Differences:
    """Return the differences of Linux's addresses and those of the registers, of a decoded function.

    Those of a virtual function are left out: its registers are those of its physical function.
    """
    if raw.physfn is not None:
        return ()
    windows = function.bridge.windows if function.bridge is not None else ()
    return differences(function.bars, windows, raw.resources)


def raws_by_address(raws: Iterable[RawFunction]) -> dict[Sbdf, RawFunction]:
    """Return the readings by address, in the order segment, bus, device, function.

    If several raws have the same address, the first is used and gets the finding `address-repeated`.
    """
    by_address: dict[Sbdf, RawFunction] = {}
    repeated: set[Sbdf] = set()
    for raw in sorted(raws, key=lambda raw: raw.sbdf):
        if by_address.setdefault(raw.sbdf, raw) is not raw:
            repeated.add(raw.sbdf)
    for sbdf in repeated:
        by_address[sbdf] = _with_finding(by_address[sbdf])
    return by_address


def _with_finding(raw: RawFunction) -> RawFunction:
    """Return `raw` with the finding that its address occurred several times."""
    why = "several functions have this address, and pcipt has read only the first of them; rescan the machine"
    return attrs.evolve(raw, findings=(*raw.findings, Finding("address-repeated", why)))
