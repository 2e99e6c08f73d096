"""Fill the guide's outputs from the lab: `python -m tests.lab.fill_guide [pv] [pvh]`.

The blocks are those of tests/docs/blocks.py that say `lab`. One boot serves all pages of a mode, in their
order. What the comment above a block says is done first, a line each:

    qmp COMMAND KEY=VALUE…       event NAME KEY=VALUE…       wait SHELL       run SHELL
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from tests.docs.blocks import Block, documents, filled, parse_blocks

from .cell import MODES, Mode
from .errors import LabError
from .fleet import Fleet
from .image import say
from .machine import Dom0
from .payload import REPOSITORY

PATIENCE = 120.0
OUTPUT = REPOSITORY / "build" / "guide"
#: What was typed has had its effect when the service tells the same twice, a second apart.
QUIET = """before=; for _ in $(seq 30); do
    now=$(pcipt status --json | jq -c '[.watch, .actions, .findings, .hotplug]')
    [ -n "$now" ] && [ "$now" = "$before" ] && break
    before=$now; sleep 1
done"""


def prepare(dom0: Dom0, step: str) -> None:
    """Do one line of the comment above a block.

    Raises: LabError where it cannot be done.
    """
    kind, _, rest = step.partition(" ")
    if kind == "run":
        dom0.run(rest, timeout=PATIENCE)
    elif kind == "wait":
        dom0.wait_for(rest, timeout=PATIENCE)
    elif kind in ("qmp", "event"):
        name, *words = rest.split()
        values = dict(word.split("=", 1) for word in words)
        if kind == "qmp":
            dom0.qmp(name, **values)
        else:
            dom0.control.wait_event(name, PATIENCE, **values)
    else:
        raise LabError(f"the guide asks for {step!r}; expected qmp, event, wait or run")


def fill(dom0: Dom0, pages: list[Path]) -> None:
    """Run all blocks of this machine's mode, page by page, and write the pages."""

    def typed(command: str) -> str:
        dom0.run(QUIET, timeout=PATIENCE)
        return dom0.run(f"{{ {command}; }} 2>&1", check=False, timeout=PATIENCE).stdout

    for page in pages:
        text = page.read_text(encoding="utf-8")
        at = 0  # outputs move what comes after them, so one block at a time
        while block := next((b for b in parse_blocks(text) if b.start >= at and b.lab == dom0.mode), None):
            say(f"{page.name}:{block.line}")
            for step in block.steps:
                prepare(dom0, step)
            text = filled(text, [block], typed)
            at = block.start + len(_body_at(text, block))
            page.write_text(text, encoding="utf-8")


def _body_at(text: str, block: Block) -> str:
    return next(b.body for b in parse_blocks(text) if b.start == block.start)


def main() -> int:
    """Boot what is wanted and fill the pages."""
    modes = [cast("Mode", word) for word in sys.argv[1:]] or list(MODES)
    if not set(modes) <= set(MODES):
        print(f"usage: python -m tests.lab.fill_guide [{'] ['.join(MODES)}]", file=sys.stderr)
        return 2
    try:
        with Fleet(dict.fromkeys(modes, True), OUTPUT) as fleet:
            for mode in modes:
                dom0 = fleet.machine(mode)
                fleet.installation(mode)
                fill(dom0, documents())
    except LabError as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
