"""Make one archive for a question or a bug report; what identifies this machine is masked.

The archive holds a recording (`pcipt record`), what the service says (status, history, reserved regions,
findings), what this host can do, versions, settings, and the lines about PCI in the logs of Xen, of Linux and
of pcipt.

These values are masked: serial numbers, MAC addresses, ids of this boot, of disks and file systems, the
host's name, names of users, addresses of routers and of the kernel. The same value has the same pseudonym
everywhere in the archive. A table shows what was masked: look at the table and at the files before you send
the archive.

Every command with `--root FILE` reads the archive like a recorded machine. Run the command as root: otherwise
config space and logs are incomplete.

Exit codes: 0 done, also if parts are missing (a line on stderr names each missing part), 1 failed, for
example because FILE exists already.
"""

import argparse
import json
import os
import shlex
import tempfile
from collections.abc import Iterator

from pcipt import __version__
from pcipt.cli.machine.client import call
from pcipt.cli.machine.host import answers_of_xen, read_host
from pcipt.cli.options import add_keep_argument, add_socket_argument
from pcipt.cli.text.masked_text import lines_from_masked
from pcipt.cli.text.progress import progress
from pcipt.cli.text.render import count_text
from pcipt.cli.text.terminal import columns, tell
from pcipt.cli.text.verdict_text import host_lines
from pcipt.errors import InputError, PciptError, printable
from pcipt.firmware.passthrough.host_view import host_to_json
from pcipt.hints import Any
from pcipt.host.recorder import NO_ANSWERS, record_machine
from pcipt.host.report.archive import pack
from pcipt.host.report.collect import Part, collect_parts, masks_for, versions
from pcipt.host.report.masks import Masks
from pcipt.host.sysfs import read_addresses

FILE = "pcipt-report.tar.gz"
FOLDER = "report"
ROOT = "/"  # of the running machine: its service and its logs are asked
#  name in the report, method of the service
ASKED = (("status.json", "Status"), ("mappings.json", "Mappings"), ("rmrr.json", "Rmrr"))
EXAMPLES = (
    ("pcipt report", f"into {FILE}"),
    ("pcipt report for-the-list.tar.gz --keep mac", "keep the MAC addresses"),
    ("pcipt report it.tar.gz && pcipt list --root it.tar.gz", "make a report and list its functions"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default=FILE, help=f"a new file; {FILE} by default"
    )
    add_keep_argument(parser)
    parser.add_argument(
        "--root",
        metavar="DIR",
        default=ROOT,
        help="report a recorded machine: DIR holds sys/, or is a report",
    )
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    if os.path.lexists(args.file):
        raise InputError(args.file, "exists already; name another file")
    masks = masks_for(args.root, args.keep)
    with tempfile.TemporaryDirectory(prefix="pcipt-report.") as directory:
        copy = os.path.join(directory, "machine")
        with progress("recording", lambda: args.root):
            answers = answers_of_xen() if args.root == ROOT else NO_ANSWERS
            recorded = record_machine(args.root, copy, answers=answers, masks=masks)
        missing = [*recorded.left_out]
        with progress("collecting", lambda: "what the service says, and logs"):
            for part in _parts(args):
                if part.text is None:
                    missing.append((f"{FOLDER}/{part.name}", part.why))
                else:
                    _write(copy, part.name, _masked(part.name, part.text, masks))
        table = lines_from_masked(masks.table())
        gone = [masks.text(f"  {path}: {why}") for path, why in missing]
        _write(copy, "README", "\n".join([*table, "", "missing:", *(gone or ["  nothing"]), ""]))
        pack(copy, args.file)
    for path, why in missing:
        tell(f"pcipt: missing {printable(path)}: {printable(masks.text(why))}")
    said = f"{printable(args.file)}: {count_text(recorded.functions, 'function')}, recorded and masked"
    print(f"{said}\nread it: `pcipt list --root {printable(shlex.quote(args.file))}`")
    print(*lines_from_masked(masks.table(), columns()), sep="\n")
    return 0


def _parts(args: argparse.Namespace) -> Iterator[Part]:
    """Yield the parts of the report besides the recording: of the service only for the running machine."""
    live = args.root == ROOT
    yield Part(
        "versions.json", json.dumps(versions(__version__) if live else {"pcipt": __version__}, indent=2)
    )
    if live:
        yield from _asked(args.socket)
    try:
        host = read_host(args.root, args.socket if live else None)
    except PciptError as error:
        yield Part("host.json", None, str(error))
    else:
        yield Part("host.json", json.dumps(host_to_json(host), indent=2))
        yield Part("host.txt", "\n".join(host_lines(host, colour=False)) + "\n")
    yield from collect_parts(args.root, live=live)


def _asked(socket: str) -> Iterator[Part]:
    """Yield what the service says; if it does not run, the reason."""
    for name, method in ASKED:
        try:
            yield Part(name, json.dumps(call(socket, method), indent=2))
        except PciptError as error:
            yield Part(name, None, str(error))
    try:
        events: list[dict[str, Any]] = []
        for sbdf in read_addresses(ROOT):
            events += call(socket, "History", {"function": str(sbdf)})["events"]
        yield Part("history.json", json.dumps({"version": 1, "events": events}))
    except PciptError as error:
        yield Part("history.json", None, str(error))


def _write(copy: str, name: str, text: str) -> None:
    """Write one part of the report."""
    os.makedirs(os.path.join(copy, FOLDER), exist_ok=True)
    with open(os.path.join(copy, FOLDER, name), "w", encoding="utf-8", errors="surrogateescape") as out:
        out.write(text)


def _masked(name: str, text: str, masks: Masks) -> str:
    """Return the text of a part, masked; a JSON document value by value."""
    if not name.endswith(".json"):
        return masks.text(text)
    return json.dumps(masks.json(json.loads(text)), indent=2) + "\n"
