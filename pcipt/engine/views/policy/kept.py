"""Which functions the policy keeps for guests, and whether what is in their places is what was expected."""

from collections.abc import Mapping, Sequence

import attrs

from pcipt.pci import ConfigSpace, Finding, Function, RawFunction
from pcipt.pci.identity import Place, host_bridge_of, identity_of, place_of
from pcipt.pci.policy.entries import Entry
from pcipt.pci.policy.resolve import findings_of, resolve


@attrs.frozen
class Kept:
    """The entries of the policy, and the ACPI names of host bridges by (segment, root bus).

    Looking a function up costs the same with any number of entries.
    """

    entries: Sequence[Entry] = ()
    bridges: Mapping[tuple[int, int], str] = attrs.field(factory=dict)
    _by_place: dict[tuple[bool, Place], Entry] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        by_place: dict[tuple[bool, Place], Entry] = {}
        for entry in self.entries:
            by_root = entry.expected.root is not None
            place = place_of(entry.expected, by_root=by_root)
            if place is not None:
                by_place[by_root, place] = entry
        object.__setattr__(self, "_by_place", by_place)

    def findings_of(self, function: Function, raw: RawFunction | None) -> list[Finding]:
        """Return the finding `policy-mismatch` if the function is in the place of an entry and not the one.

        `raw` is its last reading. A function that does not answer is not judged: that is another finding.
        """
        if not self._by_place or function.answers is False:
            return []
        root, config = host_bridge_of(function, self.bridges), ConfigSpace(raw.config or b"" if raw else b"")
        identity = identity_of(function, config, root)
        places = ((by_root, place_of(identity, by_root=by_root)) for by_root in (True, False))
        found = (self._by_place.get((by_root, place)) for by_root, place in places if place is not None)
        entries = [entry for entry in found if entry is not None]
        told = findings_of(resolve(entries, {function.sbdf: identity}))
        return [finding for _, finding in told]
