"""The trees of a machine's functions: one for each root bus, as `pcipt tree` and its picture show them."""

from collections.abc import Iterator, Sequence

from pcipt.pci import Function, Machine, Sbdf


class Forest:
    """The functions of a machine, each below its bridge, in address order.

    A function without a known bridge above it is at the top of the tree of its own bus. `roots` maps
    (segment, bus) to the functions at the top.
    """

    def __init__(self, machine: Machine) -> None:
        self._below: dict[Sbdf, list[Function]] = {}
        self.roots: dict[tuple[int, int], list[Function]] = {}
        for function in machine.functions.values():
            if function.parent is None:
                self.roots.setdefault((function.sbdf.segment, function.sbdf.bus), []).append(function)
            else:
                self._below.setdefault(function.parent, []).append(function)

    def below(self, sbdf: Sbdf) -> Sequence[Function]:
        """Return the functions directly below a bridge; empty for any other function."""
        return self._below.get(sbdf, ())

    def walk(self, functions: Sequence[Function]) -> Iterator[tuple[Function, tuple[bool, ...]]]:
        """Yield the functions and all functions below them from top to bottom, each with its `rails`.

        `rails` has a value for each level from the top to the function's own: True if more functions of that
        level follow below.
        """
        waiting: list[tuple[Function, tuple[bool, ...]]]
        waiting = [(function, (at > 0,)) for at, function in enumerate(reversed(functions))]
        while waiting:
            function, rails = waiting.pop()
            yield function, rails
            below = self.below(function.sbdf)
            waiting += ((each, (*rails, at > 0)) for at, each in enumerate(reversed(below)))


def is_root(functions: Sequence[Function]) -> bool:
    """Return True if a bus whose functions have no bridge above them is known to be a root bus.

    It is not if none of its functions has a PCI path.
    """
    return any(function.path is not None for function in functions)


def buses_below(function: Function) -> str:
    """Return the numbers of the buses below a bridge as "03" or "03-07"; empty if there are none."""
    bridge = function.bridge
    if bridge is None or not bridge.secondary:
        return ""
    last = f"-{bridge.subordinate:02x}" if bridge.subordinate != bridge.secondary else ""
    return f"{bridge.secondary:02x}{last}"
