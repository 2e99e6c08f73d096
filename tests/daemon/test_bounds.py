"""All bounds together stay below what the unit allows; what a piece takes is measured."""

import re
import tracemalloc
from pathlib import Path

from pcipt.daemon.bounds import KIB, bounds
from pcipt.daemon.document import SIZE_LIMIT
from pcipt.daemon.limits import KEYS, Limits
from pcipt.daemon.store import FileStore
from pcipt.daemon.telling import events
from pcipt.daemon.telling.history import EVENTS, History
from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.remap.actions import AddDevice, MapMmio, Outcome, Result
from pcipt.remap.ledger import Event, Ledger

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "pcipt.service"
FUNCTIONS, FEW = 10_000, 500
ROWS = {bound.what: bound for bound in bounds(FUNCTIONS)}
WHEN = "2026-11-22T19:11:32.381Z"


def sbdf(number):
    return Sbdf(0, number >> 8, number >> 3 & 0x1F, number & 7)


def test_all_bounds_together_fit_into_the_unit():
    limit = int(re.search(r"^MemoryMax=(\d+)M$", UNIT.read_text(), re.MULTILINE)[1]) * KIB * KIB
    assert sum(bound.total for bound in bounds(FUNCTIONS)) < limit


def test_an_event_takes_no_more_than_its_row_says():
    log = History()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(20 * EVENTS):
        place = f"00_1c.0-00_{number // EVENTS:02x}.0"
        action = MapMmio(
            sbdf(number), f"a BAR decodes there {number}", place, 0, Frames(Gfn(0xF00000 + number), 4)
        )
        outcome = Outcome(action, Result.DONE, f"what came of it, {number}")
        log.add(place, events.event_from_outcome(outcome, f"{WHEN}{number}"))
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken / (20 * EVENTS) < ROWS["history, an event"].size


def full_ledger():
    ledger = Ledger("boot")
    for number in range(FEW):
        add = AddDevice(sbdf(number), "Linux has it but Xen does not know it")
        place = f"00_1c.0-00_{number:04x}.0"
        maps = (
            MapMmio(sbdf(number), "its BAR decodes and Xen does not trap it", place, bar,
                    Frames(Gfn(0xF00000 + 64 * number + 8 * bar), 4))
            for bar in (0, 2, 4)
        )  # fmt: skip
        for action in (add, *maps):
            ledger.step(action, Event.INTEND, WHEN).step(action, Event.PERFORMED, WHEN)
    return ledger


def test_a_functions_part_of_the_ledger_takes_no_more_than_its_rows_say(tmp_path):
    """Three BARs that pcipt maps, which is more than most functions have."""
    store = FileStore(str(tmp_path))
    store.save(full_ledger())
    store.close()
    size = (tmp_path / "ledger").stat().st_size
    assert size / FEW * FUNCTIONS < SIZE_LIMIT / 2
    tracemalloc.start()
    ledger = FileStore(str(tmp_path)).load("boot")[0]
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(list(ledger.mapped)) == 3 * FEW
    assert held / FEW < ROWS["ledger in memory, of a function"].size
    assert (peak - held) / FEW < ROWS[
        "ledger while it is read or written, of a function"
    ].size + SIZE_LIMIT / FEW


def test_a_limit_takes_no_more_than_its_row_says():
    kept = Limits()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2 * KEYS):
        kept.take(f"key {number}", 0.0)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken < ROWS["limits of messages"].total
