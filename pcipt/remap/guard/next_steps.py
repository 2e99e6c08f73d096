"""What an administrator can do about a refused action: one step for each rule of the guards. Pure.

A step has the command to type in backticks, or it begins with "nothing can be done" or "nothing has to be
done" and gives the reason. {sbdf} is the address of the action's function. A test compares this table with
the rules.
"""

from collections.abc import Mapping

from pcipt.pci.notation.next_steps import NO_SEGMENT, REGIONS, RESCAN

_AGAIN = (
    "nothing has to be done: the machine has changed, and pcipt plans again; `pcipt resync` does this at once"
)
_UNBIND = (
    "stop the programs that use the device, `echo {sbdf} > /sys/bus/pci/devices/{sbdf}/driver/unbind`, then "
    "`pcipt resync`"
)
_UNBIND_NAMED = (
    "for each address that is named with its driver: `echo ADDRESS > "
    "/sys/bus/pci/devices/ADDRESS/driver/unbind`; then `pcipt resync`"
)
_REBOOT = "`reboot` with the function in place"
_TREE = (
    "`pcipt tree` shows the devices; remove one of the two functions in sysfs and rescan, then `pcipt resync`"
)
_EXPLAIN = "`pcipt explain {sbdf}` shows what lies there; nothing can be done while both use these addresses"
_FIRST = "nothing has to be done: pcipt does another step first; `pcipt resync` tries again"
_PROTECTED = "nothing can be done: dom0 or Xen itself needs these pages; `pcipt explain {sbdf}` names them"
_LINUX = (
    "`lspci -s {sbdf}` shows what Linux has; to look again, `echo 1 > /sys/bus/pci/rescan`, then "
    "`pcipt resync`"
)
_OWNER = (
    "if a guest has it: `xl pci-detach DOMAIN {sbdf}`; if it is in quarantine: `pcipt reclaim {sbdf}`; then "
    "`pcipt resync`"
)
_NO_REGION = "nothing has to be done: the region does not exist any more; `pcipt rmrr` lists the present ones"
_NEWER_XEN = "nothing can be done on this Xen: a newer Xen is needed; `pcipt host` shows your version"
_TRAPPED = "nothing can be done: Xen must see each access to these pages"
_UNKNOWN = "`pcipt resync` reads the function again; `pcipt explain {sbdf}` shows what is unknown"

STEPS: Mapping[tuple[str, str], str] = {
    # a function that changed its registers under Xen
    ("add-device", "unaltered"): RESCAN,
    ("remove-device", "unaltered"): RESCAN,
    ("map-mmio", "unaltered"): RESCAN,
    ("restore-reserved", "unaltered"): RESCAN,
    ("rewrite-bar", "unaltered"): RESCAN,
    ("rewrite-command", "unaltered"): RESCAN,
    # add-device
    ("add-device", "segment"): NO_SEGMENT,
    ("add-device", "hardware-answers"): _LINUX,
    ("add-device", "not-known"): "nothing has to be done: Xen knows it",
    ("add-device", "vfs-as-planned"): _AGAIN,
    ("add-device", "physical-function-first"): (
        "`pcipt resync` announces the physical function and then this one"
    ),
    ("add-device", "header-type"): (
        "nothing can be done: vPCI knows only devices and PCI bridges; use a PV dom0"
    ),
    ("add-device", "vf-bar-io"): _NEWER_XEN,
    ("add-device", "msix-taken"): _NEWER_XEN,
    ("add-device", "iommu-coverage"): _REBOOT,
    ("add-device", "record-usable"): _REBOOT,
    ("add-device", "driverless-subtree"): _UNBIND_NAMED,
    ("add-device", "driver-needs-decode"): (
        _UNBIND + "; a virtual function needs a newer Xen (`pcipt host` shows your version)"
    ),
    ("add-device", "conventional-bridge"): _FIRST,
    ("add-device", "none-given-up"): RESCAN,
    # remove-device
    ("remove-device", "segment"): "nothing can be done: Xen has no segments above ffff",
    ("remove-device", "owned-by-dom0"): _OWNER + "; if it has no owner (an orphan): `reboot`",
    ("remove-device", "gone-from-linux"): _LINUX,
    ("remove-device", "announced-where-it-is"): _FIRST,
    ("remove-device", "driverless-subtree"): _UNBIND_NAMED,
    ("remove-device", "virtual-functions"): (
        "`echo 0 > /sys/bus/pci/devices/{sbdf}/sriov_numvfs`, then `pcipt resync`"
    ),
    ("remove-device", "children"): _FIRST,
    ("remove-device", "conventional-bridge"): _UNBIND,
    ("remove-device", "reserved-region"): "nothing has to be done: the record in Xen is harmless",
    ("remove-device", "added-again"): _REBOOT,
    # map-mmio, unmap-mmio
    ("map-mmio", "certain"): _UNKNOWN,
    ("map-mmio", "claimed"): _AGAIN,
    ("map-mmio", "not-vpci"): "nothing has to be done: Xen maps the BARs of this function",
    ("map-mmio", "protected"): _PROTECTED,
    ("map-mmio", "msix-pages"): _TRAPPED,
    ("map-mmio", "other-owner"): _TREE,
    ("map-mmio", "bridge-window"): "`pcipt space` shows the windows; " + RESCAN,
    ("unmap-mmio", "certain"): _UNKNOWN,
    ("unmap-mmio", "held"): "nothing has to be done: pcipt unmaps only what it has mapped",
    ("unmap-mmio", "protected"): _PROTECTED,
    ("unmap-mmio", "decodes-nowhere"): "nothing has to be done: a device uses these pages now",
    ("unmap-mmio", "not-needed"): "nothing has to be done: another device uses these pages",
    # rewrite-bar, rewrite-command
    ("rewrite-bar", "hardware-answers"): _LINUX,
    ("rewrite-bar", "owned-by-dom0"): _OWNER,
    ("rewrite-bar", "unbound"): _UNBIND,
    ("rewrite-bar", "spared"): (
        "if it has virtual functions: `echo 0 > /sys/bus/pci/devices/{sbdf}/sriov_numvfs`, then `pcipt "
        "resync`; if it has none: `reboot`"
    ),
    ("rewrite-bar", "still-ignored"): _AGAIN,
    ("rewrite-bar", "protected"): RESCAN,
    ("rewrite-bar", "target-free"): _TREE,
    ("rewrite-bar", "bridge-window"): "`pcipt space` shows the windows; " + RESCAN,
    ("rewrite-bar", "still-dropped"): _AGAIN,
    ("rewrite-bar", "target-safe"): RESCAN,
    ("rewrite-bar", "none-given-up"): RESCAN,
    ("rewrite-command", "hardware-answers"): _LINUX,
    ("rewrite-command", "owned-by-dom0"): _OWNER,
    ("rewrite-command", "possible-address"): RESCAN,
    ("rewrite-command", "none-given-up"): RESCAN,
    # reserved regions and pages that were unmapped
    ("withdraw-reserved", "known-region"): _NO_REGION,
    ("withdraw-reserved", "protected"): _PROTECTED,
    ("withdraw-reserved", "scope-devices"): REGIONS + "; release these devices, too: `pcipt release SBDF`",
    ("withdraw-reserved", "no-bar"): _EXPLAIN,
    ("restore-reserved", "known-region"): _NO_REGION,
    ("restore-reserved", "protected"): _PROTECTED,
    ("restore-reserved", "msix-pages"): _TRAPPED,
    ("check-unmapped", "unmapped-before"): "nothing has to be done: the pages are in use again",
    ("check-unmapped", "protected"): _PROTECTED,
    ("check-unmapped", "no-bar"): "nothing has to be done: the pages are in use again",
    ("check-unmapped", "scope-devices"): "nothing has to be done: a device of dom0 needs the region",
    # policed ports
    ("guard-port", "no-orphan-is-taken"): (
        "nothing can be done on this Xen with a PVH dom0: pcipt quarantines a new device a moment later; "
        "`modprobe.blacklist=` on the kernel's command line keeps a driver from loading"
    ),
    ("quarantine", "owned-by-dom0"): _OWNER,
}


def next_step(action: str, rule: str | None, sbdf: str) -> str:
    """Return what can be done about an action that a rule refused; empty if no rule of this table refused it.

    `action` is the word of the action.
    """
    return STEPS.get((action, rule or ""), "").replace("{sbdf}", sbdf)
