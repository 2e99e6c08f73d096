"""Keep a function for guests, as it is now: its place, its ids, and its serial number if it has one.

The line for the guest's configuration file is printed, with all functions that are kept for that guest.

A function that `pcipt check` refuses is not kept. All functions in the command are judged as devices of one
guest, together with those that are kept for this guest already or for a guest without a name. SBDF is an
address, a PCI path, or '03:00.*' for all functions of a device. Afterwards make the initramfs anew, so that
no driver of dom0 gets the function at the next boot.

Exit codes: 0 kept, 1 refused, 5 not root, 6 no such device.
"""

import argparse
import shlex

from pcipt import values as attrs
from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.find import chosen_functions
from pcipt.cli.machine.handover import complain
from pcipt.cli.machine.policy import INITRAMFS, LIVE, add_policy_arguments, see
from pcipt.cli.machine.source import Source
from pcipt.cli.options import add_socket_argument
from pcipt.errors import StateError
from pcipt.firmware.passthrough.check import check_functions, make_snippets
from pcipt.firmware.passthrough.reasons import Verdict
from pcipt.firmware.passthrough.verdict import Report
from pcipt.host.policy.policy_files import add_entries
from pcipt.pci import Sbdf
from pcipt.pci.policy.entries import Entry, checked_guest, insisted_on
from pcipt.pci.policy.resolve import brief, kept_for

EXAMPLES = (
    ("pcipt policy add 03:00.0 --guest web", "keep this function for the guest web"),
    ("pcipt policy add '03:00.*' --note 'NIC of rack 4'", "all functions of that device"),
)
_NUMBERLESS, _UNKNOWN = "has no serial number", "has no serial number that can be read here"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sbdf", metavar="SBDF", nargs="+", help="address or PCI path of a function; 03:00.* is a device"
    )
    parser.add_argument("--guest", metavar="NAME", default="", help="the guest that gets the function")
    parser.add_argument(
        "--note", metavar="TEXT", default="", help="a text of your own; `pcipt policy list` shows it"
    )
    add_policy_arguments(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    guest = checked_guest(args.guest, "--guest")
    seen = see(args)
    source = Source(args)
    chosen = chosen_functions(source, seen.machine, args.sbdf, single=True)
    kept = {each.kept: each.entry.guest for each in seen.resolutions if each.kept is not None}
    reports = refuse(args, chosen, [sbdf for sbdf, name in kept.items() if not guest or name in ("", guest)])
    entries = []
    for sbdf in sorted(chosen):
        identity = seen.identities[sbdf]
        if identity.path is None:
            raise StateError(f"{sbdf} is not kept: its PCI path is unknown; `pcipt tree` shows its bridges")
        entries.append(Entry(insisted_on(identity), guest, args.note))
    files = add_entries(entries, args.policy)
    for sbdf, entry, file in zip(sorted(chosen), entries, files, strict=True):
        print(f"{sbdf} ({entry.path}, {brief(entry.expected)}) is kept for {kept_for(entry)}: {file}")
        if not entry.expected.serial:
            why = _UNKNOWN if entry.expected.serial is None else _NUMBERLESS
            complain(f"{sbdf} {why}: pcipt does not notice if an equal device is in its place")
    ours = {*chosen, *(sbdf for sbdf, name in kept.items() if guest and name == guest)}
    #  what that guest has already is refused to others only
    lines = make_snippets(
        [attrs.evolve(each, verdict=Verdict.OK) for each in reports if each.sbdf in ours], together=True
    )
    print("For the guest's configuration (xl.cfg):")
    print("\n".join(f"    {line}" for line in (*lines.xl, *lines.options)))
    complain(INITRAMFS)
    return 0


def refuse(args: argparse.Namespace, chosen: list[Sbdf], kept: list[Sbdf]) -> tuple[Report, ...]:
    """Raise StateError if `pcipt check` refuses one of the functions `chosen`, together with those `kept`.

    Return the reports on all of them. The reasons are those of the verdict; reasons to warn about `chosen`
    are printed on stderr.
    """
    source = Source(args)
    evidence = gather(source, args.root, args.socket if args.root == LIVE else None)
    together = list(dict.fromkeys([*chosen, *kept]))
    every = check_functions(together, evidence.leaving(together))
    reports = [report for report in every if report.sbdf in chosen]
    for report in reports:
        for reason in report.reasons:
            if reason.verdict is Verdict.WARN:
                complain(f"{report.sbdf}: {reason.code}: {reason.text}")
    against = [
        (report, reason)
        for report in reports
        for reason in report.reasons
        if reason.verdict is Verdict.REFUSE and report.verdict is Verdict.REFUSE
    ]
    if against:
        report, first = against[0]
        parts = [f"{report.sbdf} is not kept: {first.text}"]
        parts += [first.cure] if first.cure else []
        parts += [f"more reasons: {len(against) - 1}"] if len(against) > 1 else []
        where = f" --root {shlex.quote(args.root)}" if args.root != LIVE else ""
        raise StateError("; ".join([*parts, f"`pcipt check {report.sbdf}{where}` shows all reasons"]))
    return every
