"""Explain one function: what is mapped, what should be mapped, which actions follow, which guards allow them.

Nothing is changed. The daemon answers from what hardware, Linux and Xen say at this moment, and from its
ledger. A PV dom0 has no 1:1 map: nothing is mapped there, and nothing should be mapped. With --as pvh the
part "Should be" shows what a PVH dom0 would need for the function.

Exit codes: 0 done, 2 malformed address, 3 the daemon is not running, 5 not permitted, 6 no such device.
"""

import argparse
from collections.abc import Iterator

from pcipt.cli.machine.client import call, checked_address
from pcipt.cli.options import add_colour_argument, add_json_argument, add_socket_argument
from pcipt.cli.text.clock import readable
from pcipt.cli.text.event_text import text_from_span
from pcipt.cli.text.render import print_json, table
from pcipt.cli.text.terminal import (
    BOLD,
    GREEN,
    RED,
    YELLOW,
    folded,
    next_lines,
    painted,
    prose_columns,
    wants_colour,
)
from pcipt.errors import printable
from pcipt.hints import Any

INDENT = 2
BY = {"us": "pcipt", "xen": "Xen (vPCI)", None: "nobody"}
NOTHING = "nothing: dom0 is PV, Linux maps device memory itself"
DECODING = {True: "memory", False: "no memory", None: "unknown"}
SHADES = {"allowed": GREEN, "refused": YELLOW, "refuses": RED}
EXAMPLES = (
    ("pcipt explain 03:00.0", "why this function is mapped, or why not"),
    ("pcipt explain 00_1c.0-00_00.0", "by its PCI path"),
    ("pcipt explain 03:00.0 --as pvh", "on a PV dom0: what a PVH dom0 would map"),
    ("pcipt explain 03:00.0 --json=pretty", "the same for a program"),
)

Json = dict[str, Any]
Rows = list[tuple[str, ...]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sbdf", metavar="SBDF", help="the function, in any notation of addresses")
    parser.add_argument("--as", dest="kind", choices=["pvh"], help="show what this kind of dom0 would need")
    add_json_argument(parser)
    add_colour_argument(parser)
    add_socket_argument(parser)
    parser.set_defaults(root="/", dump=None)  # the machine whose functions are suggested


def run(args: argparse.Namespace) -> int:
    with checked_address(args, args.sbdf):
        told = call(
            args.socket, "Explain", {"function": args.sbdf} | ({"as": args.kind} if args.kind else {})
        )
    if args.json:
        print_json(told, args.json)
        return 0
    for line in lines_from_explanation(told, width=prose_columns(), colour=wants_colour(args.color)):
        print(line)
    return 0


def lines_from_explanation(told: Json, *, width: int | None = None, colour: bool = False) -> Iterator[str]:
    """Yield the lines of `pcipt explain`: the address, then three chapters: Is, Should be, Actions.

    `told` is the daemon's reply to `Explain`. Lines are folded to `width` columns; None does not fold.
    """
    bold = BOLD if colour else None
    yield painted(str(told["sbdf"]), bold)
    room = width if width is None else width - INDENT
    for title, rows in (("Is", _is(told)), _should_be(told)):
        yield f"{painted(title, bold)}:"
        yield from (" " * INDENT + line for line in table(rows, width=room))
    yield f"{painted('Actions', bold)}:"
    if not told["actions"]:
        yield from folded("  none: the function is as it should be", width, 2 * INDENT)
    for action in told["actions"]:
        yield from _action(action, width, colour=colour)


def _is(told: Json) -> Rows:
    """Return the rows of the chapter "Is": path, driver, Xen's list, owner, decoding, mappings now."""
    now = told["is"]
    rows: Rows = [
        ("Path:", printable(str(told["path"] or "unknown"))),
        ("Driver:", printable(str(told["driver"] or "none"))),
        ("Known to Xen:", "yes" if now["known_to_xen"] else "no"),
        ("Owner:", printable(str(now["owner"]))),
        ("Decodes:", DECODING[now["decodes_memory"]]),
    ]
    if told.get("dom0") == "pv":
        return [*rows, ("Mapped:", NOTHING)]
    rows += [
        (title, f"{_span(held)}, by {BY[held['by']]}, {held['state']} since {readable(held['since'])}")
        for title, held in _titled("Mapped:", now["mappings"])
    ]
    return rows


def _should_be(told: Json) -> tuple[str, Rows]:
    """Return title and rows of the chapter "Should be": who must map the function's BARs and why, and its
    desired mappings.

    If the mapped pages must stay as they are for now, a row has the reason. On a PV dom0 the chapter has one
    row, unless it is about a PVH dom0; its title says so then.
    """
    wanted, pv = told["should_be"], told.get("dom0") == "pv"
    if pv and told["as"] == "pv":
        return "Should be", [("Mapped:", f"{NOTHING}; --as pvh shows what a PVH dom0 would need")]
    because = f", because {printable(wanted['because'])}" if wanted["because"] else ""
    inside = f", inside BARs of {printable(wanted['inside'])}" if wanted.get("inside") else ""
    rows: Rows = [("Mapped by:", BY[wanted["mapped_by"]] + inside + because)]
    if wanted["kept"]:
        rows.append(("Not changed now:", printable(str(wanted["kept"]))))
    rows += [(title, _span(claim)) for title, claim in _titled("Mapped:", wanted["mappings"])]
    return "Should be if dom0 were PVH" if pv else "Should be", rows


def _titled(title: str, found: list[Json]) -> Iterator[tuple[str, Json]]:
    """Yield each item with a title: `title` for the first item, an empty text for the others."""
    for number, item in enumerate(found):
        yield (title if number == 0 else ""), item


def _span(item: Json) -> str:
    """Return the BAR and the range of a mapping as text."""
    return text_from_span(item).strip()


def _action(action: Json, width: int | None, *, colour: bool) -> Iterator[str]:
    """Yield the lines of one action: the action with its reason, its verdict, the answer of each guard."""
    verdict = str(action["verdict"])
    why = f": {printable(action['why'])}" if action.get("why") else ""
    rule = f" by {action['rule']}" if action.get("rule") else ""
    precaution = f", with {action['precaution']}" if action.get("precaution") else ""
    head = f"  {action['action']}{text_from_span(action)}: {printable(action['reason'])}"
    yield from folded(head, width, 2 * INDENT)
    text = f"    {verdict}{rule}{precaution}{why}"
    first, *more = folded(text, width, 3 * INDENT)
    yield first.replace(verdict, painted(verdict, SHADES.get(verdict) if colour else None), 1)
    yield from more
    yield from next_lines(action, 3 * INDENT, width)
    for guard in action["guards"]:
        says = "refuses" if guard["refuses"] else "allows"
        facts = f": {printable(guard['refuses'])}" if guard["refuses"] else ""
        first, *more = folded(f"    guard {guard['rule']} {says}{facts}", width, 3 * INDENT)
        yield first.replace(says, painted(says, SHADES.get(says) if colour else None), 1)
        yield from more
