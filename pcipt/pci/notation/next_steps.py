"""What an administrator can do about a finding: one step for each code. Pure.

A step has the command to type in backticks, or it begins with "nothing can be done" or "nothing has to be
done" and gives the reason. {sbdf} is the address of the function; without an address it stays the word SBDF.
A test compares this table with all codes of the program.
"""

from collections.abc import Mapping

NOTHING = ("nothing can be done", "nothing has to be done")

RESCAN = (
    "`echo 1 > /sys/bus/pci/devices/{sbdf}/remove`, then `echo 1 > /sys/bus/pci/rescan` (this stops its "
    "driver)"
)
_VENDOR = (
    "nothing can be done in dom0 about firmware's table: install newer firmware, or send `pcipt report` to "
    "the vendor"
)
_AGAIN = "as root, make the recording again: `pcipt record DIR`"
_COMPARE = "`pcipt resync` compares everything again"
_WHY = "`systemctl status pcipt` shows why; then `systemctl restart pcipt`"
_READ = "when you have read this, `systemctl restart pcipt` ends the finding"
_SAVE = "free some space on the disk of /var/lib/pcipt (`df /var/lib/pcipt`), then `pcipt resync`"
_LATER = "`reboot` at the next maintenance of the host; nothing is urgent"
_SHOW = "`pcipt show {sbdf}` has the details; leave the function in dom0"
_HOST = "`pcipt host` shows what this host can do without it"
_UNBIND = "`echo {sbdf} > /sys/bus/pci/devices/{sbdf}/driver/unbind`, then `pcipt resync`"
_REPORT = "please send `pcipt report` to the makers of pcipt"
_SEEN = "`pcipt history {sbdf}` shows what happened; `pcipt resync` ends the finding"
REGIONS = "`pcipt rmrr` lists the devices of the region"
NO_SEGMENT = "nothing can be done: Xen has no segments above ffff; leave the function in dom0"
_STAYS = (
    "nothing can be done in dom0: leave the function as it is, because Xen would not take it again; send "
    "`pcipt report` to the vendor, or install newer firmware"
)
_MACHINE = "nothing has to be done: this machine is built so"

STEPS: Mapping[str, str] = {
    # the service
    "state-unusable": "`ls -ld /var/lib/pcipt`; make it writable for root, then `systemctl restart pcipt`",
    "ledger-damaged": _READ,
    "boot-snapshot-damaged": _READ,
    "mappings-damaged": _READ,
    "ledger-unsaved": _SAVE,
    "boot-snapshot-unsaved": _SAVE,
    "mappings-unsaved": _SAVE,
    "boot-snapshot-late": _LATER,
    "messages-lost": _LATER,
    "unsettled": "`pcipt status` again after a minute",
    "watch-unavailable": (
        "set `watch.source` in /etc/pcipt/pcipt.toml, then `systemctl restart pcipt`; until then `pcipt "
        "resync` finds what was written"
    ),
    "xen-not-asked": _WHY,
    "regions-not-asked": _WHY,
    "memory-map-unread": _WHY,
    "reserved-regions-unread": _WHY,
    "hardware-changed": "`pcipt diff` shows the changes",
    "policy-unreadable": (
        "`pcipt policy check` shows the line; correct the file, then `systemctl reload pcipt`"
    ),
    "line-absent": "correct the line that `pcipt policy check` shows, then `systemctl reload pcipt`",
    "line-malformed": "correct the line that `pcipt policy check` shows, then `systemctl reload pcipt`",
    "line-stale": "`pcipt policy snippet` prints the right lines; then `systemctl reload pcipt`",
    "policy-mismatch": "`pcipt policy list` shows the entries; `pcipt policy remove` deletes an entry",
    "waits-for-admit": "`pcipt admit {sbdf}` gives it to dom0; to give it to a guest, leave it in quarantine",
    "not-quarantined": "`pcipt release {sbdf}` quarantines it, or shows the reason against that",
    "port-unguarded": (
        "`modprobe xen-pciback`, then `pcipt resync`; `update-initramfs -u` puts it into the initramfs, "
        "which loads it before other drivers"
    ),
    "port-absent": (
        "`pcipt list --json` has the path of each port; correct hotplug.below, then `systemctl reload pcipt`"
    ),
    "host-differs": "please send `pcipt report` to the makers of pcipt; until then what Xen says counts",
    # what Xen knows
    "orphan": (
        "`pcipt resync` tries to give it to dom0; if that is refused, `reboot`. Do not unplug the device "
        "before the reboot: an old Xen panics then"
    ),
    "unknown-to-xen": _COMPARE + ", and announces the function if the guards allow it",
    "ghost": "`pcipt resync --dry-run` shows what would be done, `pcipt resync` does it",
    "moved": (
        "unbind the drivers behind the renumbered bridge, then `pcipt resync`; if the finding stays, "
        + RESCAN
    ),
    "late-add": (
        "`echo {sbdf} > /sys/bus/pci/devices/{sbdf}/driver/unbind`, then `echo {sbdf} > "
        "/sys/bus/pci/drivers_probe`"
    ),
    "vfs-unsized": "`echo 0 > /sys/bus/pci/devices/{sbdf}/sriov_numvfs`, then `pcipt resync`",
    # mappings
    "not-mapped": "`pcipt explain {sbdf}` shows which rule refuses; then `pcipt resync`",
    "stale-mapping": "`pcipt explain {sbdf}` shows which rule refuses; then `pcipt resync`",
    "mapping-in-doubt": (
        "`pcipt explain {sbdf}` shows the reason; `pcipt resync` tries again; a `reboot` always helps"
    ),
    "unmap-undone": (
        "`pcipt explain {sbdf}` shows the pages; find out what in dom0 uses them (`cat /proc/iomem`), or "
        "boot Xen with `dom0=no-pf-fixup`"
    ),
    "bar-write-ignored": _UNBIND,
    "reset-behind-vpci": _UNBIND,
    "resized-behind-vpci": RESCAN,
    "decode-refused": RESCAN,
    "given-up": RESCAN,
    "header-changed": RESCAN,
    "bar-at-the-end": RESCAN,
    "rom-over-bar": RESCAN,
    "dma-stopped": (
        "if a driver has the function, `echo {sbdf} > /sys/bus/pci/devices/{sbdf}/driver/unbind`; then "
        "`pcipt resync`; if the finding stays, `reboot`"
    ),
    # reserved regions
    "region-missing": (
        "`pcipt rmrr` shows the region, `pcipt resync` tries again; if the finding stays, `reboot`"
    ),
    "region-left": "`pcipt rmrr` shows the region, `pcipt resync` tries again",
    "region-comes-back": "boot Xen with `dom0=no-pf-fixup`",
    "sp5100-combined-mode": "switch SATA's combined mode off in the firmware's setup, then `reboot`",
    "region-added": (
        "nothing has to be done: Xen's command line adds the region; `pcipt rmrr` lists its devices"
    ),
    "region-option": "correct the option on Xen's command line, then `reboot`",
    "region-base-zero": _VENDOR,
    "region-empty": _VENDOR,
    "region-no-scope": _VENDOR,
    "region-over-ram": _VENDOR,
    "region-overlaps": _VENDOR,
    "region-unaligned": _VENDOR,
    "region-large": REGIONS + "; nothing has to be done",
    "region-shared": REGIONS + ": give all of them to one guest",
    "region-misread": REGIONS + "; nothing else can be done on this Xen: the finding names a Xen that helps",
    "region-dropped": REGIONS + "; if a device needs the region, `reboot` with this device plugged in",
    "buses-renumbered": (
        "`pcipt tree` shows the present numbers; if the finding names a wrong device, `reboot`"
    ),
    # refused DMA, guests
    "dma-fault": "`pcipt history {sbdf}` and `xl dmesg` show when; `pcipt resync` forgets it",
    "bus-master-off": (
        "in dom0: `echo {sbdf} > /sys/bus/pci/devices/{sbdf}/driver/unbind`, then `echo {sbdf} > "
        "/sys/bus/pci/drivers_probe`; in a guest: `xl shutdown DOMAIN`, then start it again"
    ),
    "dma-faults-not-believed": "boot Xen without `console_to_ring`; `pcipt resync` forgets them",
    "dma-faults-not-heard": "`xl dmesg` must be readable: `systemctl status pcipt` shows why it is not",
    "guest-leftover": "`xl list` names the guest: `xl destroy` it and start it again",
    "guest-bar-moved": "`xl list` names the guest: `xl destroy` it and start it again",
    # what Xen complained of
    "console-unread": "`xl dmesg` must be readable: `systemctl status pcipt` shows why it is not",
    "capability-hidden": (
        "nothing can be done on this Xen: `pcipt host` shows its version, and docs/xen-releases.md names a "
        "newer one that helps"
    ),
    "capability-not-hidden": _STAYS,
    "vpci-missing": "`pcipt status` names orphans; `pcipt resync` gives orphans to dom0",
    "setup-failed": _STAYS,
    "msix-refused": (
        "`pcipt show {sbdf}` has the BARs; unless the finding says not to remove the function, give each BAR "
        "an address, then " + RESCAN
    ),
    "vpci-map-failed": _SEEN,
    "bar-not-mapped": "`pcipt pvh layout` and `pcipt explain {sbdf}` show what lies there",
    "bar-write-dropped": _SEEN,
    "resize-refused": _SEEN,
    "interrupt-fault": "`xl dmesg` has the lines; `pcipt resync` forgets it",
    "iommu-failed": "`xl dmesg` has the lines; `pcipt resync` tries again; if that fails, `reboot`",
    "assign-failed": "`xl pci-assignable-list` shows what is assignable; `xl dmesg` has the lines",
    # one function
    "no-answer": "if the device was unplugged: " + RESCAN + "; if not, `reboot`",
    "no-config": _AGAIN + "; on a live host read it as root: `sudo pcipt show {sbdf}`",
    "config-short": _AGAIN + "; on a live host read it as root: `sudo pcipt show {sbdf}`",
    "header-unknown": _SHOW + "; " + _REPORT,
    "msix-broken": _SHOW,
    "capability-loop": _SHOW,
    "capability-pointer": _SHOW,
    "bar-broken": _SHOW,
    "bar-resized": RESCAN,
    "bar-drift": RESCAN,
    "window-drift": RESCAN,
    "id-drift": RESCAN,
    "bus-drift": RESCAN,
    "bus-numbers": RESCAN,
    "bus-conflict": RESCAN,
    "bus-primary": "run the `setpci` command that the finding names; do not rescan any bus before",
    "bridge-vanished": RESCAN,
    "bar-unassigned": "`pcipt space` shows which window is too small and what helps",
    "io-bar-unassigned": (
        "nothing has to be done: drivers use the memory BARs; `pcipt space` shows the window"
    ),
    "vf-bar-unassigned": (
        "`pcipt space` shows which window is too small; if you use no VFs, nothing has to be done"
    ),
    "enhanced-allocation": _MACHINE,
    "segment-not-in-xen": NO_SEGMENT,
    "address-repeated": "the file names one function twice: " + _AGAIN,
    "duplicate-address": "the file names one function twice: " + _AGAIN,
    "two-places": _AGAIN,
    "no-path": "`pcipt tree` shows the bridges; use the address {sbdf} in place of a path",
    "bar-numbers-counted": "`lspci -vvv -xxx` has the registers: send its output",
    # recordings and what others sent
    "dump-malformed": "`lspci -vvv -xxx` makes the text again",
    "no-tables": "`sudo pcipt rmrr` on the machine itself asks Xen; " + _AGAIN,
    "no-functions": _AGAIN,
    "table-unread": "read it as root: `sudo pcipt rmrr`; for a recording, `sudo pcipt record DIR`",
    "iomem-malformed": _AGAIN,
    "memmap-unread": _AGAIN,
    "memmap-malformed": _AGAIN,
    "resource-malformed": _AGAIN,
    "value-malformed": _AGAIN,
    "read-error": _AGAIN,
    "file-missing": _AGAIN,
    "file-empty": _AGAIN,
    "file-kind": _AGAIN,
    "file-too-long": _AGAIN,
    "link-broken": _AGAIN,
    "link-dangling": _AGAIN,
    "link-loop": _AGAIN,
    "link-mismatch": _AGAIN,
    "link-outside": _AGAIN,
    # firmware
    "acpi-checksum": _VENDOR,
    "acpi-entry": _VENDOR,
    "acpi-length": _VENDOR,
    "acpi-scope": _VENDOR,
    "mmcfg-cut": _VENDOR,
    "mmcfg-differs": _VENDOR,
    "mmcfg-not-reserved": _VENDOR,
    "mmcfg-overlap": _VENDOR,
    "over-ram": _VENDOR,
    "not-pvh": "nothing has to be done: the layout shown is that of a PVH dom0",
}
#  the ways in which Xen refuses a table (`firmware/acceptance/rules.py`)
_TABLES = ("dmar-", "ivrs-", "ivmd-", "fadt-")


def next_step(code: str, sbdf: str | None = None) -> str:
    """Return what can be done about a finding with this code; empty if the code is not known.

    `sbdf` is the address of the function that the finding is about. An unknown code comes from another
    version of pcipt.
    """
    step = STEPS.get(code) or (f"{_HOST}; {_VENDOR}" if code.startswith(_TABLES) else "")
    return step.replace("{sbdf}", sbdf or "SBDF")
