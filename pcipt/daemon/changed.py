"""Tell what has changed in the hardware since the boot before, and which lines of other tools are wrong."""

import os
from collections import Counter
from collections.abc import Mapping

from pcipt.engine.views.policy.kept import Kept
from pcipt.errors import InputError
from pcipt.firmware.machine_changes import ChangeKind, Seen, changes_between, concerns
from pcipt.host.policy.boots import last_boot
from pcipt.host.policy.places import read_identities
from pcipt.host.policy.written_lines import read_lines
from pcipt.host.sysfs import read_machine
from pcipt.pci import ConfigSpace, Finding, Machine, RawFunction, Sbdf, decode_machine
from pcipt.pci.identity import Identity, identities_of
from pcipt.pci.policy.resolve import resolve
from pcipt.pci.policy.written import wrong_lines

CHANGED = "hardware-changed"
BOOTS = "boots"  # in the state directory


def hardware_changed(
    directory: str, boot_id: str, machine: Machine, raws: Mapping[Sbdf, RawFunction], kept: Kept
) -> tuple[Finding, ...]:
    """Return a finding if this machine is not what it was at the boot before.

    `directory` has the recordings. `machine` and `raws` are the functions now. `kept` is the policy.
    """
    before = last_boot(boot_id, directory)
    if before is None:
        return ()
    try:
        old = read_machine(before)
    except InputError:
        return ()
    was = read_identities(before, decode_machine(old), old)
    changes = changes_between(_states(was), _states(_identities(machine, raws, kept)))
    if not changes:
        return ()
    counts = Counter(each.kind for each in changes)
    words = ", ".join(f"{counts[kind]} {kind.value}" for kind in ChangeKind if counts[kind])
    ours = sum(any(concerns(each, entry.expected) for entry in kept.entries) for each in changes)
    more = f"; changed functions that are kept for guests: {ours}, run `pcipt policy check`" if ours else ""
    since = os.path.basename(before).partition(".")[0]
    return (
        Finding(
            CHANGED,
            f"hardware has changed since the boot of {since}: {words}; `pcipt diff` shows the changes{more}",
        ),
    )


def lines_to_correct(
    root: str, machine: Machine, raws: Mapping[Sbdf, RawFunction], kept: Kept
) -> tuple[Finding, ...]:
    """Return a finding for each line of other tools that names nothing, or another device than the policy.

    `root` is where the kernel's command line and xl's files are. The others are as in `hardware_changed`.
    """
    lines = read_lines(root)
    if not lines:
        return ()
    now = _identities(machine, raws, kept)
    wrong = wrong_lines(lines, resolve(kept.entries, now), now)
    return tuple(Finding(each.code, each.text) for each in wrong)


def _identities(machine: Machine, raws: Mapping[Sbdf, RawFunction], kept: Kept) -> dict[Sbdf, Identity]:
    """Return the identity of each function of the machine now; without the labels of slots."""
    configs = {sbdf: ConfigSpace(raw.config or b"") for sbdf, raw in raws.items()}
    return identities_of(machine, configs, kept.bridges, {})


def _states(identities: Mapping[Sbdf, Identity]) -> dict[Sbdf, Seen]:
    return {sbdf: Seen(identity) for sbdf, identity in identities.items()}
