"""Take functions out of dom0 for passthrough; a reserved region leaves dom0 with its last device.

First the functions are checked as by `pcipt check`. A function that the check refuses is released only with
--force; some refusals hold even with --force. Then xl gives the functions to xen-pciback and quarantines
them. At last the daemon withdraws their reserved regions; on a PV dom0 it cannot withdraw regions. If a step
fails, all steps are undone.

SBDF is an address in any notation, a PCI path, or '03:00.*' for all functions of a device; other sets of
addresses are refused.

Exit codes: 0 done (also if Xen's list of owners cannot be read; a line on stderr then says so), 1 refused or
failed, 3 the daemon is not running, 4 done, but Xen does not show the new owner, 5 not root, 6 no such
device.
"""

import argparse
import os
from collections.abc import Callable, Container, Mapping, Sequence

from pcipt.cli.commands.passthrough.check import DEGRADED, json_from_report
from pcipt.cli.machine.client import call, regions_held
from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.find import chosen_functions
from pcipt.cli.machine.handover import (
    DOM0,
    QUARANTINE,
    Json,
    Step,
    Steps,
    alone,
    complain,
    complain_of_others,
    is_pv,
    look,
    owners_in,
    print_end,
    print_undone,
    require_root,
)
from pcipt.cli.machine.source import Source
from pcipt.cli.options import add_json_argument, add_socket_argument
from pcipt.cli.text.render import print_json
from pcipt.errors import InputError, NotRunningError, StateError
from pcipt.firmware.passthrough.check import check_functions
from pcipt.firmware.passthrough.host import Host
from pcipt.firmware.passthrough.reasons import EVERY_GUEST, STEPS, Reason, Verdict
from pcipt.firmware.passthrough.verdict import Report
from pcipt.host.toolstack import PCIBACK, Toolstack
from pcipt.pci import Sbdf
from pcipt.pci.policy.resolve import MISMATCH

EXAMPLES = (
    ("pcipt release --dry-run 03:00.0", "what would be done, and what speaks against it"),
    ("pcipt release 03:00.0", "take this function out of dom0"),
    ("pcipt release '03:00.*'", "all functions of that device"),
)

# refusals that --force does not override: dom0 or the machine would crash, or it is impossible
FINAL = frozenset(
    {
        "platform", "root-filesystem", "console", "pf-with-vfs", "owned-by-guest", "owned-by-xen",
        "igfx-off", "segment-not-in-xen", "unknown-to-xen", "orphan", "vmd-orphans",
    }
)  # fmt: skip
UNSURE = Reason(
    "root-filesystem-unknown",
    Verdict.REFUSE,
    "it is not known whether the function carries the root file system of dom0",
    STEPS["root-filesystem-unknown"],
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(root="/", dump=None)
    parser.add_argument(
        "sbdf", metavar="SBDF", nargs="+", help="address or PCI path of a function; 03:00.* is a device"
    )
    parser.add_argument(
        "--force", action="store_true", help="release also what the check refuses, where this is possible"
    )
    parser.add_argument("--dry-run", action="store_true", help="show verdicts and steps; change nothing")
    add_json_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    if not args.dry_run:
        require_root("release", os.geteuid())
    with alone(args.socket, dry_run=args.dry_run):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    """Do what `run` does, while no other handover runs."""
    source = Source(args)
    evidence = gather(source, args.root, args.socket)
    chosen = chosen_functions(source, evidence.machine, args.sbdf, single=True)
    status = call(args.socket, "Status")
    owners = owners_in(status)
    toolstack = Toolstack(args.root)
    if not args.dry_run:
        toolstack.require()
    final = _final_codes(evidence.host)
    reports = check_functions(chosen, evidence.leaving(chosen))
    others = {each["sbdf"]: each["text"] for each in status["findings"] if each["code"] == MISMATCH}
    refusals = [(report, reason) for report in reports for reason in _refusals(report, others)]
    judged = [json_from_report(report) for report in reports]
    answer: Json = {
        "dry_run": args.dry_run,
        "result": "planned" if args.dry_run else "done",
        "checks": judged,
    }
    against = [each for each in refusals if each[1].code in final or not args.force]
    if against:
        if args.json:
            print_json({**answer, "result": "refused", "steps": [], "functions": []}, args.json)
        raise StateError(_refused(against, final, force=args.force))
    for report in reports:
        for reason in report.reasons:
            if reason.verdict is not Verdict.OK:
                complain(f"{report.sbdf}: {reason.code}: {reason.text}")
    steps = Steps(dry_run=args.dry_run, quiet=bool(args.json))
    told: dict[Sbdf, Json] = {}
    try:
        away = frozenset(sbdf for sbdf in chosen if owners.get(str(sbdf)) == QUARANTINE)
        steps.run(_steps(sorted(chosen), toolstack, args.socket, told, away, pv=is_pv(status)))
    except (StateError, KeyboardInterrupt) as error:
        print_undone(error, {**answer, "steps": steps.told}, args.json)
        raise
    if args.dry_run:
        told = {sbdf: {"sbdf": str(sbdf), "owner": owners.get(str(sbdf), DOM0)} for sbdf in sorted(chosen)}
    print_end(told.values(), {**answer, "steps": steps.told}, args.json)
    return DEGRADED if not args.dry_run and complain_of_others(told.values(), QUARANTINE) else 0


def _final_codes(host: Host) -> frozenset[str]:
    """Return the codes of the reasons that --force does not override on this host.

    These are the codes in `FINAL`. If Xen uses no IOMMU, the host's reasons that refuse every kind of guest
    are added: they have the cause.
    """
    causes = (each for each in host.reasons if each.verdict is Verdict.REFUSE and each.guests == EVERY_GUEST)
    return FINAL.union(each.code for each in causes) if host.used is False else FINAL


def _refusals(report: Report, others: Mapping[str, str]) -> list[Reason]:
    """Return the reasons against a release: those with the verdict REFUSE, in their order.

    If it is unknown which function carries the root file system, UNSURE is appended. `others` has what the
    daemon says of functions that are in the place of others which the policy keeps, by address.
    """
    found = [reason for reason in report.reasons if reason.verdict is Verdict.REFUSE]
    if (why := others.get(str(report.sbdf))) is not None:
        found.append(Reason(MISMATCH, Verdict.REFUSE, why, STEPS[MISMATCH]))
    return [*found, UNSURE] if "root file system" in report.unknown else found


def _refused(against: Sequence[tuple[Report, Reason]], final: frozenset[str], *, force: bool) -> str:
    """Return the error text for functions that are not released.

    `against` has the reasons against the release, at least one, each with the report of its function. `final`
    has the codes of the reasons that --force does not override. The text has the first reason with its cure,
    the number of further reasons, and whether --force helps.
    """
    report, first = against[0]
    lasts = any(reason.code in final for _, reason in against)
    words = [f"{report.sbdf} is not released: {first.text}"]
    words += [f"more reasons: {len(against) - 1} (`pcipt check` shows all)"] if len(against) > 1 else []
    words += [first.cure] if first.cure else []
    words += ["--force does not change that"] if lasts else []
    words += ["--force releases it anyway"] if not lasts and not force else []
    return "; ".join(words)


def _steps(
    chosen: Sequence[Sbdf],
    toolstack: Toolstack,
    socket: str,
    told: dict[Sbdf, Json],
    away: Container[Sbdf],
    *,
    pv: bool,
) -> list[Step]:
    """Return the steps that release the functions `chosen`, in the order in which they must run.

    `away` holds the functions that are quarantined. A function in `away` that is bound to xen-pciback is not
    given again: only its regions are withdrawn. With `pv` no region can be withdrawn. When the steps run,
    they put the daemon's reply for each function into `told`.
    """
    steps = []
    if not toolstack.has_pciback:
        steps.append(Step("load xen-pciback", toolstack.load_pciback, toolstack.unload_pciback))
    for sbdf in chosen:
        driver = toolstack.driver(sbdf)
        if driver != PCIBACK:
            steps.append(_giving(sbdf, driver, toolstack, socket))
        elif sbdf not in away:
            steps.append(_quarantining(sbdf, toolstack, socket))
    steps += [_withdrawing(sbdf, socket, told, pv=pv) for sbdf in chosen]
    return steps


def _giving(sbdf: Sbdf, driver: str | None, toolstack: Toolstack, socket: str) -> Step:
    """Return the step that binds a function to xen-pciback and quarantines it.

    `driver` is the function's driver before the step; None is no driver. Undoing restores the function's
    reserved regions and binds the function to `driver` again. If `driver` is None, the function is left
    without a driver.
    """
    given: list[Sbdf] = []

    def do() -> None:
        toolstack.give(sbdf)
        given.append(sbdf)

    def back() -> None:
        try:
            toolstack.take_back(sbdf, driver, rebind=driver is not None)
        except InputError:
            if given or toolstack.driver(sbdf) != PCIBACK:
                raise
            toolstack.let_go(sbdf, driver)  # xl refuses to take back a function that is not quarantined

    def undo() -> None:
        if toolstack.driver(sbdf) == PCIBACK:
            _with_regions(socket, sbdf, back)
        elif driver is not None and toolstack.driver(sbdf) is None:
            toolstack.bind(sbdf, driver)

    of = f"from {driver} " if driver is not None else ""
    return Step(f"give {sbdf} {of}to xen-pciback", do, undo)


def _quarantining(sbdf: Sbdf, toolstack: Toolstack, socket: str) -> Step:
    """Return the step that quarantines a function which is bound to xen-pciback and which dom0 still owns.

    A function is in that state after `xen-pciback.hide=` at boot. Undoing brings that state back.
    """
    given: list[Sbdf] = []

    def do() -> None:
        toolstack.give(sbdf)
        given.append(sbdf)

    def back() -> None:
        toolstack.take_back(sbdf, rebind=False)
        toolstack.hide(sbdf)

    def undo() -> None:
        if given:
            _with_regions(socket, sbdf, back)

    return Step(f"quarantine {sbdf}", do, undo)


def _with_regions(socket: str, sbdf: Sbdf, back: Callable[[], None]) -> None:
    """Call `back` while the daemon keeps the function's reserved regions in dom0.

    If the daemon does not run, only call `back`: the daemon restores the regions when it starts.

    If the daemon ends while `back` runs, it is not called again.

    Raises: the errors of `back`; the errors of `regions_held` except NotRunningError.
    """
    begun = False
    try:
        with regions_held(socket, sbdf):
            begun = True
            back()
    except NotRunningError:  # the daemon restores the regions when it starts
        if not begun:
            back()


def _withdrawing(sbdf: Sbdf, socket: str, told: dict[Sbdf, Json], *, pv: bool) -> Step:
    """Return the step in which the daemon withdraws the function's reserved regions that no device of dom0
    needs.

    On a PV dom0 (`pv`) the daemon only asks Xen for the owner: no region can be withdrawn. The step puts the
    daemon's reply for the function into `told`. It has nothing to undo.
    """

    def do() -> None:
        told[sbdf] = look(socket, sbdf)

    return Step(
        f"ask Xen who has {sbdf}" if pv else f"withdraw the regions that are reserved only for {sbdf}", do
    )
