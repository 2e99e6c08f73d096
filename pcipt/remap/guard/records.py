"""The guard of functions of which Xen has a record that no add can use. Pure."""

from pcipt.remap.actions import Action, AddDevice
from pcipt.remap.guard.facts import Facts, Rule


def _usable(action: AddDevice, facts: Facts) -> str | None:
    """Refuse to add an orphan again if Xen does not know what it is, and cannot make its record anew.

    Xen sees what a function is only when it makes its record. If nothing answered then, VT-d refuses each
    later add. A Xen that panics when it removes an orphan keeps the record until the next boot.
    Source: Xen drivers/passthrough/pci.c (alloc_pdev, pdev_type), vtd/iommu.c (domain_context_mapping:
            EINVAL).
    """
    if action.sbdf not in facts.untyped or action.sbdf not in facts.xen.orphans:
        return None
    return (
        "it did not answer when Xen made its record, and this Xen cannot make another one: each add fails; "
        "reboot with the function in place"
    )


#        name, kind of action, rule
RECORD_RULES: tuple[tuple[str, type[Action], Rule], ...] = (("record-usable", AddDevice, _usable),)
