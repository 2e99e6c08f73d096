"""Check before an attempt whether functions can be passed through to a guest, and what must go with them.

For each function a verdict (ok, warn, unknown, refuse) is printed with its reasons. Lines to paste for xl and
xen-pciback follow.

Without SBDF all functions are checked. Then the output begins with what the host can do (`pcipt host`) and
with the functions that can be passed through; bridges and parts of the host are in one line. --xen judges for
another version of Xen.

Several SBDF are judged as devices of one guest. SBDF is an address in any notation, a PCI path, or a set of
addresses: 03:00.* is a device, 03: a bus, * all functions.

With --xl all devices in a guest's configuration file are judged together, for the kind of guest and with the
options (such as rdm_policy) in that file. If the user is root, the file is also compared with the policy
(`pcipt policy`).

Exit codes: 0 all are ok, 1 the file cannot be read, 4 something is warn, unknown or refuse, 6 no such device.
"""

import argparse

from pcipt import values as attrs
from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.find import HIDE, SBDF_HELP, chosen_of, no_such_device, targets_of
from pcipt.cli.machine.pvh import add_xen_argument
from pcipt.cli.machine.source import Source, add_source_arguments
from pcipt.cli.options import add_colour_argument, add_json_argument, add_legend_argument, add_socket_argument
from pcipt.cli.text.render import count_text, print_json
from pcipt.cli.text.terminal import folded, on_terminal, prose_columns, wants_colour
from pcipt.cli.text.verdict_text import host_lines, reason_lines, verdict_word
from pcipt.errors import NoSuchDeviceError, printable
from pcipt.firmware.passthrough.check import Snippets, check_functions, make_snippets
from pcipt.firmware.passthrough.configured import complaints, in_line, line_for, named
from pcipt.firmware.passthrough.host_view import host_to_json, reason_to_json
from pcipt.firmware.passthrough.reasons import GRAVEST_FIRST, Guest, Reason, Verdict
from pcipt.firmware.passthrough.verdict import Evidence, Report
from pcipt.hints import TYPE_CHECKING
from pcipt.pci import Sbdf

if TYPE_CHECKING:
    from pcipt.pci.notation.xl_guest import XlGuest

DEGRADED = 4
EXAMPLES = (
    ("pcipt check 03:00.0", "can this function be passed through?"),
    ("pcipt check '03:00.*'", "all functions of that device, for one guest"),
    ("pcipt check --guest hvm 03:00.0", "can it be passed through to an HVM guest?"),
    ("pcipt check --xl /etc/xen/web.cfg", "all devices in the file of that guest"),
    ("pcipt check --json=pretty", "all functions, for a program"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sbdf", metavar="SBDF", nargs="*", help=SBDF_HELP)
    add_source_arguments(parser)
    parser.add_argument(
        "--guest",
        choices=[Guest.PV.value, Guest.HVM.value],
        help="judge for this kind of guest; default: the kind for which the verdict is best",
    )
    parser.add_argument(
        "--xl",
        metavar="FILE",
        help="judge the devices of a guest's configuration file, for its kind of guest",
    )
    parser.add_argument(
        "--policy",
        metavar="DIR",
        help="with --xl: compare with the policy in DIR; default on this machine: /etc/pcipt",
    )
    add_xen_argument(parser)
    add_json_argument(parser)
    add_colour_argument(parser)
    add_legend_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    source = Source(args)
    guest = _guest(args)
    targets = targets_of(source, args.sbdf if guest is None else [])
    live = args.dump is None and args.root == "/"
    root = None if args.dump is not None else args.root
    evidence = gather(source, root, args.socket if live else None, args.xen)
    chosen = chosen_of(source, evidence.machine, targets)
    told: list[str] = []
    if guest is not None:
        chosen, absent = _devices_of(source, guest, evidence)
        told = [*complaints(guest), *absent]
        evidence = attrs.evolve(evidence, xl=guest, guest=Guest(guest.kind))
    elif args.guest is not None:
        evidence = attrs.evolve(evidence, guest=Guest(args.guest))
    single = bool(chosen) or guest is not None  # else the whole machine
    if chosen:
        evidence = evidence.leaving(chosen)
    reports = check_functions(chosen if single else evidence.machine.functions, evidence)
    if guest is None:
        snippets = make_snippets(reports, together=single)
    else:
        from pcipt.cli.machine.policy import against_policy  # as in _guest

        wrong = against_policy(args, args.xl)
        told += wrong
        snippets = make_snippets(in_line(guest, reports), together=True)
        snippets = attrs.evolve(snippets, xl=line_for(guest, reports))
        if wrong:  # they have the right line
            snippets = attrs.evolve(snippets, xl=(), hide="", options=())
    if args.json:
        answer = {"host": host_to_json(evidence.host), **json_from_reports(reports, snippets)}
        print_json({**answer, "guest": _guest_json(guest, told)}, args.json)
    else:
        _print_all(args, evidence, reports, guest, told, snippets, single=single)
    return 0 if not told and all(report.verdict is Verdict.OK for report in reports) else DEGRADED


def _print_all(
    args: argparse.Namespace,
    evidence: Evidence,
    reports: tuple[Report, ...],
    guest: "XlGuest | None",
    told: list[str],
    snippets: Snippets,
    *,
    single: bool,
) -> None:
    """Print the reports as text: of a whole machine (`single` is False) with the host and in another order.

    `guest` is the guest of --xl, `told` what is wrong with its file.
    """
    colour = wants_colour(args.color)
    above = frozenset() if single else frozenset(evidence.host.reasons)
    if not single:
        print("\n".join([*host_lines(evidence.host, colour=colour), "", *_passable(reports), ""]))
    if guest is not None:
        print("\n".join(_guest_lines(guest, told)))
    for report in reports if single else _passable_first(reports):
        print("\n".join(_lines(report, colour=colour, above=above)))
    if not single:
        print("\n".join(_of_the_host(reports, colour=colour)), end="")
    _print_end(reports, snippets if single else None)
    if on_terminal() and not args.no_legend:
        print(f"\n{_counts(reports)}.")


def _guest(args: argparse.Namespace) -> "XlGuest | None":
    """Return the guest that the file of --xl describes; None without --xl.

    Raises: SystemExit(2) if something else says which functions are meant, or for which guest; InputError
            or MalformedError if the file cannot be read.
    """
    if args.xl is None:
        return None
    if args.sbdf or args.guest is not None:
        args.refuse("the file of --xl names the functions and the kind of guest: give no SBDF and no --guest")
    from pcipt.host.policy.written_lines import read_text  # it loads much, and only --xl needs it
    from pcipt.pci.notation.xl_guest import parse_xl_guest

    return parse_xl_guest(read_text(args.xl), args.xl)


def _devices_of(source: Source, guest: "XlGuest", evidence: Evidence) -> tuple[list[Sbdf], list[str]]:
    """Return the functions that a guest's file names, each once, and a complaint for each that is absent.

    Raises: NoSuchDeviceError if the machine has none of them.
    """
    found: dict[Sbdf, None] = {}
    absent: list[NoSuchDeviceError] = []
    for device in guest.devices:
        functions = named(device, evidence.machine.functions)
        if device.slot is not None and not functions:
            text = device.text.removesuffix(device.options)
            absent.append(no_such_device(source, text, device.slot))
        found.update(dict.fromkeys(functions))
    if absent and not found:
        raise absent[0]
    effect = "xl does not start the guest; correct the address in pci"
    return list(found), [f"{each}: {effect}" for each in absent]


def _guest_json(guest: "XlGuest | None", told: list[str]) -> dict[str, object] | None:
    """Return the guest of a file as JSON, with what is wrong with the file (`told`); None without a file."""
    if guest is None:
        return None
    return {"file": guest.source, "name": guest.name or None, "kind": guest.kind, "complaints": told}


def _guest_lines(guest: "XlGuest", told: list[str]) -> list[str]:
    """Return the lines about a guest's file: its guest, and what is wrong with the file."""
    name = f"guest {printable(guest.name)}" if guest.name else "a guest without a name"
    lines = [f"{printable(guest.source)}: {name}, {guest.kind.upper()}"]
    for text in told:
        lines += folded(f"    {printable(text)}", prose_columns(), 6)
    return lines


def _is_host(report: Report) -> bool:
    """Return True if the function is a bridge or another part of the host that no guest can be given."""
    return any(reason.code == "platform" for reason in report.reasons)


def _passable_first(reports: tuple[Report, ...]) -> list[Report]:
    """Return the reports that are not about the host itself, those first that can best be passed through."""
    order = tuple(reversed(GRAVEST_FIRST))
    return sorted(
        (each for each in reports if not _is_host(each)), key=lambda each: order.index(each.verdict)
    )


def _passable(reports: tuple[Report, ...]) -> list[str]:
    """Return the lines that say which functions can be passed through, and which of them are warn."""
    words = {Verdict.OK: "", Verdict.WARN: " (warn)"}
    names = [
        f"{each.sbdf}{words[each.verdict]}" for each in _passable_first(reports) if each.verdict in words
    ]
    return folded(f"Can be passed through: {', '.join(names) or 'nothing'}.", prose_columns(), 4)


def _of_the_host(reports: tuple[Report, ...], *, colour: bool) -> list[str]:
    """Return the lines about all bridges and other parts of the host; an empty list if there are none."""
    names = [str(each.sbdf) for each in reports if _is_host(each)]
    if not names:
        return []
    count = f"{count_text(len(names), 'bridge or part', 'bridges and parts')} of the host"
    word = verdict_word(Verdict.REFUSE, colour=False)
    first, *more = folded(f"{word} {count}: {', '.join(names)}", prose_columns(), 8)
    return [verdict_word(Verdict.REFUSE, colour=colour) + first[len(word) :], *more, ""]


def json_from_reports(reports: tuple[Report, ...], snippets: Snippets) -> dict[str, object]:
    """Return the object of `pcipt check --json` without its version: the reports in order, and the lines to
    paste.
    """
    return {
        "functions": [json_from_report(report) for report in reports],
        "snippets": {
            "xl": list(snippets.xl),
            "xl.options": list(snippets.options),
            "xen-pciback.hide": snippets.hide,
            "xen": list(snippets.xen),
        },
    }


def json_from_report(report: Report) -> dict[str, object]:
    """Return the check's result for one function as JSON: verdict, reasons, facts that are not known.

    "path" is None if the PCI path is unknown; "cure" is None if nothing helps against a reason.
    """
    return {
        "sbdf": str(report.sbdf),
        "path": report.path,
        "verdict": report.verdict.value,
        "guests": {guest.value: verdict.value for guest, verdict in report.guests.items()},
        "reasons": [reason_to_json(reason) for reason in report.reasons],
        "rdm_policy": "relaxed" if report.relaxed else "strict",
        "unknown": list(report.unknown),
    }


def _lines(report: Report, *, colour: bool, above: frozenset[Reason] = frozenset()) -> list[str]:
    """Return the lines about one function: its verdict and address, then each reason with its cure.

    Of the reasons in `above`, which were printed before, only the codes are printed.
    """
    path = f"  (path {report.path})" if report.path is not None and "-" in report.path else ""
    only = f"  ({', '.join(sorted(guest.value for guest in report.only))} guests only)" if report.only else ""
    lines = [f"{verdict_word(report.verdict, colour=colour)} {report.sbdf}{path}{only}"]
    for reason in report.reasons:
        shown = Reason(reason.code, reason.verdict, "see the host above") if reason in above else reason
        lines += reason_lines(shown, colour=colour)
    return lines


def _print_end(reports: tuple[Report, ...], snippets: Snippets | None) -> None:
    """Print which facts are not known, then from `snippets` the lines to paste for xl, xen-pciback and Xen.

    If all facts are known, no facts are printed. If `snippets` is None or has no line for xl, no lines to
    paste are printed.
    """
    unknown = dict.fromkeys(what for report in reports for what in report.unknown)
    if unknown:
        print("\n".join(folded(f"Not known here, so not judged: {', '.join(unknown)}.", prose_columns(), 2)))
    if snippets is not None and snippets.xl:
        print("\nFor the guest's configuration (xl.cfg):")
        print("\n".join(f"    {line}" for line in (*snippets.xl, *snippets.options)))
        if snippets.hide:  # empty if all that the line names has a name of xl
            print("To keep dom0's drivers away at boot (for dom0's kernel command line):")
            print(f"    {HIDE}{snippets.hide}")
    if snippets is not None and snippets.xen:
        print("For Xen's command line, if the option is not there already:")
        print(f"    {' '.join(snippets.xen)}")


def _counts(reports: tuple[Report, ...]) -> str:
    """Return how many functions were checked, and how many of them have each verdict."""
    counts = ", ".join(
        f"{sum(report.verdict is verdict for report in reports)} {verdict.value}" for verdict in GRAVEST_FIRST
    )
    return f"{count_text(len(reports), 'function')}: {counts}"
