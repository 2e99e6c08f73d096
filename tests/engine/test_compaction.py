"""The ledger's steps are included in the ledger by age and by size, however busy the host is."""

import pytest

from pcipt.daemon import document
from pcipt.daemon.store import FileStore
from pcipt.engine.engine import Engine
from pcipt.engine.queue import DELAYS, STORE, Reason
from pcipt.firmware.coverage import BootSnapshot
from pcipt.remap.actions import AddDevice
from pcipt.remap.ledger import Event
from pcipt.remap.ledger_json import ledger_to_json
from pcipt.remap.steps import Step
from tests.engine.stage import S, Stage

LIMIT = DELAYS[STORE, Reason.TIMER].longest


class Counted(FileStore):
    """A store that tells when the ledger was written whole."""

    def __init__(self, directory):
        super().__init__(directory)
        self.saves = 0

    def save(self, ledger):
        super().save(ledger)
        self.saves += 1


class Busy:
    """An engine on a clock that stands still unless it is moved."""

    def __init__(self, directory):
        self.now = 1000.0
        self.stage = Stage(known=[])
        self.store = Counted(str(directory))
        self.engine = Engine(
            self.stage.host, self.stage.xen, self.store, self.stage.settings, lambda: "now", lambda: self.now
        )
        self.work_off()

    def work_off(self):
        while self.engine.next_due() == 0.0:
            self.engine.reconcile(self.engine.take())

    def act(self):
        """Let Xen forget a function, so that it is added again."""
        if S("01:00.0") in self.engine.view.known:
            self.stage.xen.remove_device(S("01:00.0"))
        self.engine.add(S("01:00.0"), Reason.APPEARED)
        self.work_off()


def told(ledger):
    """Return what the steps tell; `late` is written with the next whole ledger."""
    return [{**entry, "late": None} for entry in ledger_to_json(ledger)["entries"]]


@pytest.mark.parametrize("every", [0.5, 1.0, 4.0, 4.9])
def test_a_host_that_is_never_idle_has_its_ledger_written_whole(tmp_path, every):
    busy = Busy(tmp_path)
    since, oldest = busy.now, 0.0
    saves = busy.store.saves
    for _ in range(100):
        busy.now += every
        busy.act()
        if busy.store.saves > saves:
            oldest, since, saves = max(oldest, busy.now - since), busy.now, busy.store.saves
    assert 0.0 < max(oldest, busy.now - since) <= LIMIT + 2 * every
    busy.store.close()


def test_many_steps_at_once_are_included_by_their_size(tmp_path, monkeypatch):
    """The clock stands still: nothing is due for its age."""
    monkeypatch.setattr(document, "STEPS_LONG", 4000)
    busy = Busy(tmp_path)
    saves = busy.store.saves
    for _ in range(100):
        busy.act()
        size = (tmp_path / "ledger.steps").stat().st_size if (tmp_path / "ledger.steps").exists() else 0
        assert size < 8000
    assert busy.store.saves > saves
    ledger = FileStore(str(tmp_path)).load("boot")[0]
    assert told(ledger) == told(busy.engine.ledger)
    busy.store.close()


def test_steps_that_cannot_be_included_are_told_and_then_no_more_is_done(tmp_path, monkeypatch):
    """The disk takes what is appended, but no second file: the steps end at their limit."""
    monkeypatch.setattr(document, "STEPS_LONG", 2000)
    monkeypatch.setattr(document, "STEPS_LIMIT", 4000)
    busy = Busy(tmp_path)

    def full(_ledger):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(busy.store, "save", full)
    for _ in range(50):
        busy.act()
        busy.now += 0.1
    assert (tmp_path / "ledger.steps").stat().st_size < 8000
    assert "ledger-unsaved" in [finding.code for _, finding in busy.engine.findings]
    assert S("01:00.0") not in busy.engine.view.known  # nothing is done that is not on disk
    monkeypatch.undo()
    busy.now += DELAYS[STORE, Reason.FAILED].longest
    busy.work_off()
    assert S("01:00.0") in busy.engine.view.known
    assert busy.engine.finding_count == 0
    busy.store.close()


def test_every_delay_has_an_upper_bound():
    for (key, reason), delay in DELAYS.items():
        assert 0.0 <= delay.shortest <= delay.longest <= 3600.0, (key, reason)
        assert all(0.0 <= pause <= 3600.0 for pause in delay.pauses)


def test_a_long_file_of_steps_is_loaded_whole(tmp_path):
    store = FileStore(str(tmp_path))
    store.save(store.load("boot")[0])
    store.save_snapshot(BootSnapshot("boot", frozenset(), {}))
    add = AddDevice(S("01:00.0"), "why")
    for _ in range(200):
        store.append([Step(add, event, "now") for event in (Event.INTEND, Event.PERFORMED) * 50])
    store.close()
    ledger, _, findings = FileStore(str(tmp_path)).load("boot")
    assert findings == []
    assert len(ledger.entries) == 1
