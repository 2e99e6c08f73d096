"""Number the sets of functions that go together: `groups` and `tree` call a set by the same number."""

from collections.abc import Iterable

from pcipt.firmware.passthrough.groups import FunctionSet
from pcipt.pci import Sbdf


def numbered(sets: Iterable[FunctionSet]) -> dict[Sbdf, int]:
    """Return the number of the set of each function, for sets with several functions that a guest can be
    given.

    Numbers begin at 1 and follow the order of `sets`. `sets` must be all sets of the machine. Bridges have
    the number of their set too.
    """
    several = [each for each in sets if len(each.assignable) > 1]
    return {sbdf: number for number, each in enumerate(several, 1) for sbdf in each.members}
