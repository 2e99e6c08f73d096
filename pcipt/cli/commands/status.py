"""Show whether the service is healthy, what it did, and where hardware, Linux and Xen disagree.

Exit codes: 0 healthy, 3 the daemon is not running, 4 degraded (findings exist).
"""

import argparse

from pcipt.cli.machine.client import call
from pcipt.cli.options import add_colour_argument, add_json_argument, add_legend_argument, add_socket_argument
from pcipt.cli.text.clock import age, readable
from pcipt.cli.text.event_text import text_from_action
from pcipt.cli.text.render import count_text, print_json
from pcipt.cli.text.terminal import (
    BOLD,
    GREEN,
    RED,
    YELLOW,
    can_show,
    folded,
    next_lines,
    on_terminal,
    painted,
    prose_columns,
    wants_colour,
)
from pcipt.errors import printable
from pcipt.hints import Any

EXIT_DEGRADED = 4
FIXUP = {
    "on": "; Xen maps a page when dom0 accesses it (pf-fixup)",
    "unknown": "; perhaps Xen maps a page when dom0 accesses it (pf-fixup)",
}
DOTS = {"healthy": GREEN, "degraded": YELLOW, "failed": RED}
LABEL = 11  # columns of a label, as in systemctl status
_BASES = {
    "build": "the third number of the version is not known; if releases differ, pcipt takes the safer answer",
    "newer": "newer than all releases that pcipt knows; pcipt treats it like the newest known release",
    "older": "older than all releases that pcipt knows; pcipt treats it like the oldest known release",
}
# verdicts on kinds of guest
_GIVES = {"ok": "yes", "warn": "with a warning", "unknown": "not known", "refuse": "no"}
_USED = {True: "used", False: "not used", None: "not known to be used"}
_REMAPS = {True: ", interrupts remapped", False: ", interrupts not remapped", None: ""}
RESULTS = {"refused": YELLOW, "failed": RED}
HINT = "`pcipt explain SBDF` shows what is mapped and what should be mapped; `pcipt resync` compares again."
EXAMPLES = (
    ("pcipt status", "the state of the service, its findings, its last actions"),
    ("pcipt status -q && echo fine", "in a script: only the exit code"),
    ("pcipt status --json=pretty", "the same for a program"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json_argument(parser)
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print nothing; the exit code is the answer"
    )
    add_legend_argument(parser, "print no hint about further commands on a terminal")
    add_colour_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    status = call(args.socket, "Status")
    if args.json:
        print_json(status, args.json)
    elif not args.quiet:
        print("\n".join(render(status, colour=wants_colour(args.color), width=prose_columns())))
        if status["findings"] and on_terminal() and not args.no_legend:
            print("", *folded(HINT, prose_columns(), 0), sep="\n")
    return 0 if status.get("health") == "healthy" else EXIT_DEGRADED


def render(status: dict[str, Any], *, colour: bool, width: int | None = None) -> list[str]:
    """Return the lines of `pcipt status`, in the layout of `systemctl status`.

    What must be looked at stands first: the facts, the findings, who has what was given away. `status` is the
    daemon's reply to `Status`. Lines are folded to `width` columns; None does not fold.
    """
    shade = DOTS.get(str(status["health"]), BOLD) if colour else None
    dot = "●" if on_terminal() and can_show("●") else "*"
    lines = [f"{painted(dot, shade)} pcipt - the PCI service of the hardware domain"]
    for label, text in _facts(status):
        first, *more = folded(f"{label:>{LABEL}}: {printable(text)}", width, LABEL + 2)
        if label == "Health":
            first = first.replace(str(status["health"]), painted(str(status["health"]), shade), 1)
        lines += [first, *more]
    if status["findings"]:
        lines += ["", painted("Findings:", BOLD if colour else None)]
        for item in status["findings"]:
            text = f"  {item['sbdf'] or '-':12} {item['code']}: {printable(item['text'])}"
            first, *more = folded(text, width, 15)
            lines += [_painted_once(first, item["code"], YELLOW if colour else None), *more]
            lines += next_lines(item, 15, width)
    if status.get("given_away"):
        lines += ["", painted("Given away:", BOLD if colour else None)]
        lines += [printable(f"  {each['sbdf']:12} {each['owner']}") for each in status["given_away"]]
    lines += _without_address(status.get("unassigned") or [], colour=colour, width=width)
    if status["actions"]:
        lines += ["", painted("Last actions:", BOLD if colour else None)]
        for item in status["actions"]:
            first, *more = folded(f"  {item['when']} {action_line(item)}", width, 6)
            shade = RESULTS.get(item["result"]) if colour else None
            lines += [_painted_once(first, f": {item['result']}", shade), *more]
    release = status.get("xen_release") or {}
    if release.get("safer"):
        lines += [
            "",
            painted(
                "Not known for this build of Xen; pcipt takes the safer answer:", BOLD if colour else None
            ),
        ]
        for each in release["safer"]:
            text = f"  {'yes' if each['taken'] else 'no':4} {printable(each['fact'])}"
            lines += folded(text, width, 7)
    return lines


def _without_address(notes: list[dict[str, Any]], *, colour: bool, width: int | None) -> list[str]:
    """Return the lines about BARs without an address that their functions can do without."""
    if not notes:
        return []
    lines = ["", painted("BARs without an address:", BOLD if colour else None)]
    for item in notes:
        lines += folded(f"  {item['sbdf']:12} {printable(item['text'])}", width, 15)
    return lines


def _facts(status: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows at the top of `pcipt status`, each as label and text."""
    counts = status["counts"]
    known = f"{counts['known_to_xen']} known to Xen, {counts['added_by_us']} added by pcipt"
    xen = f"{status['xen']}, dom0 {status['dom0'].upper()}" if status["xen"] else "not available"
    xen += FIXUP.get(str(status.get("pf_fixup")), "")
    since, passed = readable(status["since"]), age(status["since"])
    facts = [
        ("Health", str(status["health"])),
        ("Running", f"since {since}; {passed} ago" if passed else f"since {since}"),
        ("Xen", xen),
        *_release(status.get("xen_release") or {}),
        *_host(status.get("host")),
        ("Mode", str(status["mode"])),
        ("Functions", f"{counts['functions']}, {known}"),
        ("Ghosts", str(counts["ghosts"])),
        ("Orphans", str(counts["orphans"])),
    ]
    if counts.get("reserved"):
        shared = f", {counts['reserved_shared']} shared by several functions (pcipt rmrr)"
        facts.append(("Reserved", count_text(counts["reserved"], "region") + shared))
    if "mappings" in counts and status["dom0"] != "pv":
        facts.append(("Mappings", f"{counts['mappings']}, {counts.get('stale', 0)} stale"))
    return [*facts, ("Findings", str(counts["findings"])), ("Watching", _watching(status["watch"]))]


def _release(release: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a row if this version of Xen is not one whose source was read, else none."""
    basis, version = release.get("basis", "read"), release.get("version", "")
    if basis not in _BASES:
        return []
    return [("Release", f"{version}: {_BASES[basis]}")]


def _host(host: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return a row about what this host can do, none if the daemon does not tell it (it is older, or has not
    asked Xen yet).
    """
    if host is None:
        return []
    of = {
        verdict: [guest for guest, found in host["guests"].items() if found == verdict] for verdict in _GIVES
    }
    said = [f"{' and '.join(of[verdict])} {words}" for verdict, words in _GIVES.items() if of[verdict]]
    against = [
        reason["code"] for reason in host["reasons"] if reason["verdict"] == host["verdict"] == "refuse"
    ]
    kind, used = host["iommu"]["kind"] or "IOMMU", _USED[host["iommu"]["used"]]
    remaps = _REMAPS[host["iommu"]["interrupt_remapping"]] if host["iommu"]["used"] else ""
    if against:
        said = [f"none ({', '.join(against)}; see pcipt host)"]
    return [("Host", f"{kind} {used}{remaps}; devices for guests: {', '.join(said)}")]


def _watching(watch: dict[str, Any]) -> str:
    """Return a line about the source of configuration writes: name, counters, the last change of a register.

    Without a source it says that there are hot-plug messages only.
    """
    if watch["source"] is None:
        return "hot-plug messages only"
    text = f"{watch['source']}, {watch['writes']} writes seen, {watch['lost']} lost"
    last = watch["last_change"]
    return text if last is None else f"{text}; last change {last['when']} {last['sbdf']} {last['change']}"


def _painted_once(line: str, part: str, colour: str | None) -> str:
    """Return the line with the first occurrence of `part` coloured; unchanged if `colour` is None."""
    return line.replace(part, painted(part, colour), 1) if colour is not None else line


def action_line(item: dict[str, Any]) -> str:
    """Return one action in words: name, address, BAR, range, result, detail and reason."""
    return f"{item['action']} {item['sbdf']}{text_from_action(item)}"
