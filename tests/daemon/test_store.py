import hashlib
import json
import os

import attrs
import pytest

from pcipt.daemon.document import Document
from pcipt.daemon.folder import Folder
from pcipt.daemon.store import PLACES, FileStore, UnsavedMark
from pcipt.engine.engine import Engine
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.remap.actions import AddDevice, MapMmio
from pcipt.remap.desired import By
from pcipt.remap.ledger import Event, Ledger
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun, mapped_to_json
from pcipt.remap.steps import Read, Step
from pcipt.remap.vpci.roster import Listed, Roster
from tests.engine.stage import Stage

PORT = parse_sbdf("00:1c.0")
LEDGER = Ledger("boot").step(AddDevice(PORT, "why"), Event.INTEND)
LOST = BootSnapshot("boot", frozenset(), {}, late=True)
SNAPSHOT = BootSnapshot("boot", frozenset({PORT}), {PORT: (1, 4)})


def saved(tmp_path):
    keeper = FileStore(str(tmp_path))
    keeper.save(LEDGER)
    keeper.save_snapshot(SNAPSHOT)
    return FileStore(str(tmp_path))


def test_both_papers_come_back_in_the_same_boot(tmp_path):
    assert saved(tmp_path).load("boot") == (LEDGER, SNAPSHOT, [])


def test_another_boot_starts_afresh(tmp_path):
    assert saved(tmp_path).load("other") == (Ledger("other"), None, [])


def test_nothing_there_is_nothing_wrong(tmp_path):
    assert FileStore(str(tmp_path)).load("boot") == (Ledger("boot"), None, [])


def test_damaged_papers_are_said_and_replaced(tmp_path):
    keeper = saved(tmp_path)
    (tmp_path / "ledger").write_text("{")
    (tmp_path / "boot").write_text("{")
    ledger, snapshot, findings = keeper.load("boot")
    assert (ledger, snapshot) == (Ledger("boot"), LOST)
    codes = ["ledger-damaged", "boot-snapshot-damaged", "boot-snapshot-late"]
    assert [finding.code for finding in findings] == codes


def test_a_sound_document_that_is_no_ledger_is_said(tmp_path):
    Document(Folder(str(tmp_path)), "ledger", "ledger").save({"entries": 3})
    Document(Folder(str(tmp_path)), "boot", "boot").save(
        {"bridges": {"x": [1]}, "functions": [], "boot_id": "boot"}
    )
    ledger, snapshot, findings = FileStore(str(tmp_path)).load("boot")
    assert (ledger, snapshot) == (Ledger("boot"), LOST)
    codes = ["ledger-damaged", "boot-snapshot-damaged", "boot-snapshot-late"]
    assert [finding.code for finding in findings] == codes
    assert "not a ledger" in findings[0].text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boot.damaged-1", "ledger.damaged-1"]


def test_a_newer_ledger_is_kept_aside_with_the_steps_that_follow_it(tmp_path):
    keeper = saved(tmp_path)
    keeper.append([Step(AddDevice(PORT, "why"), Event.PERFORMED, "now")])
    newer = (tmp_path / "ledger").read_text().replace('"format": 2', '"format": 3')
    (tmp_path / "ledger").write_text(newer)
    steps = (tmp_path / "ledger.steps").read_bytes()
    again = FileStore(str(tmp_path))
    again.load("boot")
    again.save(Ledger("boot"))
    assert (tmp_path / "ledger.damaged-1").read_text() == newer
    assert (tmp_path / "ledger.steps.damaged-1").read_bytes() == steps


def test_what_is_no_file_is_kept_aside_and_holds_nobody_up(tmp_path):
    (tmp_path / "ledger").mkdir()
    os.mkfifo(tmp_path / "mappings")
    findings = FileStore(str(tmp_path)).load("boot")[2]
    assert [finding.code for finding in findings] == ["ledger-damaged", "mappings-damaged"]


def test_the_files_can_be_read_by_people(tmp_path):
    saved(tmp_path)
    whole = json.loads((tmp_path / "ledger").read_text())
    assert whole["content"]["entries"][0]["sbdf"] == "0000:00:1c.0"


NOW = "2026-01-01T00:00:00Z"
MAP = MapMmio(PORT, "why", "00_1c.0", 0, Frames(Gfn(0xFE000), 2))


def steps(*events):
    return [Step(MAP, event, NOW) for event in events]


def test_what_was_appended_comes_back(tmp_path):
    keeper = saved(tmp_path)
    ledger, _, _ = keeper.load("boot")
    for step in steps(Event.INTEND, Event.PERFORMED):
        keeper.append([step])
        step.apply(ledger)
    keeper.close()
    again, _, findings = FileStore(str(tmp_path)).load("boot")
    assert (again, findings) == (ledger, [])
    assert [held.state for held in again.mapped] == [State.HELD]


def test_the_first_step_of_a_boot_begins_a_ledger_of_its_own(tmp_path):
    keeper = saved(tmp_path)
    keeper.load("next")
    keeper.save_snapshot(attrs.evolve(SNAPSHOT, boot_id="next"))
    keeper.append(steps(Event.INTEND))
    keeper.close()
    ledger, _, findings = FileStore(str(tmp_path)).load("next")
    assert ([held.state for held in ledger.mapped], ledger.entries, findings) == ([State.INTENDED], (), [])


def test_what_vpci_mapped_is_remembered_apart_for_this_boot(tmp_path):
    keeper = saved(tmp_path)
    ledger, _, _ = keeper.load("boot")
    ledger.mapped.put(MappedRun("00_1c.0", PORT, 1, Frames(Gfn(0xFD000), 1), By.XEN, NOW))
    keeper.save_mappings(ledger)
    assert len(FileStore(str(tmp_path)).load("boot")[0].mapped) == 1
    assert len(FileStore(str(tmp_path)).load("next")[0].mapped) == 0
    (tmp_path / "mappings").write_text("{")
    findings = FileStore(str(tmp_path)).load("boot")[2]
    assert [finding.code for finding in findings] == ["mappings-damaged"]


def test_a_ledger_of_the_first_format_is_read(tmp_path):
    content = {
        "boot_id": "boot",
        "entries": [{"action": "add-device", "sbdf": "0000:00:1c.0", "state": "held", "reason": "why"}],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    (tmp_path / "ledger").write_text(
        json.dumps({"format": 1, "sha256": digest, "content": content}, indent=1)
    )
    ledger, _, findings = FileStore(str(tmp_path)).load("boot")
    assert [finding.code for finding in findings] == ["boot-snapshot-late"]
    assert ledger.find("add-device", PORT).state is State.HELD


def kept(tmp_path, when):
    """Keep when messages were lost in this boot; give the ledger of the next start."""
    ledger = Ledger("boot")
    ledger.messages_lost = when
    FileStore(str(tmp_path)).save_mappings(ledger)
    return FileStore(str(tmp_path)).load("boot")[0]


@pytest.mark.parametrize("when", [NOW, None])
def test_that_messages_were_lost_is_remembered_for_this_boot(tmp_path, when):
    assert kept(tmp_path, when).messages_lost == when
    assert ("messages_lost" in (tmp_path / "mappings").read_text()) is (when is not None)
    assert FileStore(str(tmp_path)).load("next") == (Ledger("next"), None, [])


def test_sizes_that_vpci_has_are_remembered_for_this_boot(tmp_path):
    store = FileStore(str(tmp_path))
    ledger = store.load("boot")[0]
    ledger.sizes = {"00_05.0": {0: 1 << 28, 2: None}}
    store.save_mappings(ledger)
    store.save(ledger)
    assert FileStore(str(tmp_path)).load("boot")[0].sizes == ledger.sizes
    assert FileStore(str(tmp_path)).load("next")[0].sizes == {}


def test_functions_that_vpci_gave_up_or_does_not_take_are_remembered_for_this_boot(tmp_path):
    store = FileStore(str(tmp_path))
    ledger = store.load("boot")[0]
    ledger.given_up, ledger.faulty = {"00_05.0", "00_1c.0-00_00.0"}, {"00_06.0"}
    ledger.severed, ledger.complaints = {"00_1e.0"}, {"setup-failed 0000:00:07.0 - - - - 19"}
    store.save_mappings(ledger)
    store.save(ledger)
    read, other = (FileStore(str(tmp_path)).load(boot)[0] for boot in ("boot", "next"))
    assert [getattr(read, name) for name in PLACES] == [getattr(ledger, name) for name in PLACES]
    assert [getattr(other, name) for name in PLACES] == [set()] * len(PLACES)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("places", [{"a": 1}, [1], "00_05.0", None])
def test_damaged_places_are_said_and_kept_aside(tmp_path, name, places):
    store = FileStore(str(tmp_path))
    store._mappings.save({"boot_id": "boot", "mappings": [], name: places})
    ledger, _, findings = FileStore(str(tmp_path)).load("boot")
    assert (getattr(ledger, name), [finding.code for finding in findings]) == (set(), ["mappings-damaged"])


@pytest.mark.parametrize("sizes", [[1], {"a": 1}, {"a": [[0]]}, {"a": [["x", 1]]}, None])
def test_damaged_sizes_are_said_and_kept_aside(tmp_path, sizes):
    store = FileStore(str(tmp_path))
    store._mappings.save({"boot_id": "boot", "mappings": [], "sizes": sizes})
    ledger, _, findings = FileStore(str(tmp_path)).load("boot")
    assert (ledger.sizes, [finding.code for finding in findings]) == ({}, ["mappings-damaged"])


def test_that_messages_were_lost_is_remembered_beside_a_ledger_of_its_own_with_steps(tmp_path):
    keeper = saved(tmp_path)
    ledger, _, _ = keeper.load("boot")
    ledger.messages_lost = NOW
    keeper.save_mappings(ledger)
    keeper.append(steps(Event.INTEND))
    keeper.close()
    again, _, findings = FileStore(str(tmp_path)).load("boot")
    assert (again.messages_lost, [held.state for held in again.mapped]) == (NOW, [State.INTENDED])
    assert findings == []
    assert "messages_lost" not in (tmp_path / "ledger").read_text()


def test_the_next_boot_writes_over_what_was_lost_in_this_one(tmp_path):
    kept(tmp_path, NOW)
    keeper = FileStore(str(tmp_path))
    keeper.save_mappings(keeper.load("next")[0])
    assert FileStore(str(tmp_path)).load("boot")[0].messages_lost is None
    assert FileStore(str(tmp_path)).load("next")[0].messages_lost is None


@pytest.mark.parametrize("damaged", [5, True, None, [], {}, [NOW]], ids=str)
def test_a_damaged_time_of_lost_messages_is_ignored(tmp_path, damaged):
    run = MappedRun("00_1c.0", PORT, 1, Frames(Gfn(0xFD000), 1), By.XEN, NOW)
    content = {"boot_id": "boot", "mappings": mapped_to_json([run]), "messages_lost": damaged}
    Document(Folder(str(tmp_path)), "mappings", "mappings").save(content)
    ledger, _, findings = FileStore(str(tmp_path)).load("boot")
    assert (ledger.messages_lost, list(ledger.mapped), findings) == (None, [run], [])


@pytest.mark.parametrize("content", [[NOW], NOW, {"messages_lost": NOW}, {"boot_id": 7}], ids=str)
def test_mappings_without_a_boot_are_ignored(tmp_path, content):
    Document(Folder(str(tmp_path)), "mappings", "mappings").save(content)
    assert FileStore(str(tmp_path)).load("boot") == (Ledger("boot"), None, [])


def test_mappings_that_cannot_be_read_are_said_and_kept_aside(tmp_path):
    content = {"boot_id": "boot", "mappings": 7, "messages_lost": NOW}
    Document(Folder(str(tmp_path)), "mappings", "mappings").save(content)
    ledger, _, (finding,) = FileStore(str(tmp_path)).load("boot")
    assert (finding.code, list(ledger.mapped)) == ("mappings-damaged", [])
    assert [path.name for path in tmp_path.iterdir()] == ["mappings.damaged-1"]


ROSTER = Roster({"00_1c.0": Listed(PORT, "8086:10d3:?:?", 4711, ((0, Frames(Gfn(0xFE000), 4)),))}, 812, 4711)


def test_the_roster_comes_back_and_steps_change_it(tmp_path):
    ledger = Ledger("boot", roster=ROSTER.copy())
    keeper = FileStore(str(tmp_path))
    keeper.save_mappings(ledger)
    keeper.save(ledger)
    assert FileStore(str(tmp_path)).load("boot")[0].roster == ROSTER
    keeper.append([Read("00_1c.0", None)])
    assert FileStore(str(tmp_path)).load("boot")[0].roster == Roster({}, 812, 4711)
    assert FileStore(str(tmp_path)).load("other")[0].roster == Roster()


@pytest.mark.parametrize(
    "broken", [[], {"functions": []}, {"functions": {"00": {}}}, {"functions": {}, "line": -1}]
)
def test_a_damaged_roster_is_said(tmp_path, broken):
    keeper = FileStore(str(tmp_path))
    content = {"boot_id": "boot", "mappings": [], "roster": broken}
    Document(Folder(str(tmp_path)), "mappings", "mappings").save(content)
    ledger, _, findings = keeper.load("boot")
    assert ledger.roster == Roster()
    assert [finding.code for finding in findings] == ["mappings-damaged"]


def another(path):
    FileStore(str(path.parent)).save_snapshot(BootSnapshot("before", frozenset({PORT}), {}))


#  what became of the file of the snapshot after this boot had one
LOSSES = {
    "deleted": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "of another boot": another,
    "no file": lambda path: (path.unlink(), path.mkdir()),
    "no snapshot": lambda path: Document(Folder(str(path.parent)), "boot", "boot").save({"boot_id": "boot"}),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_snapshot_that_was_lost_is_not_taken_for_one_of_the_boot(tmp_path, loss):
    saved(tmp_path).close()
    LOSSES[loss](tmp_path / "boot")
    store = FileStore(str(tmp_path))
    _, snapshot, findings = store.load("boot")
    assert snapshot == LOST
    assert findings[-1].code == "boot-snapshot-late"
    store.save_snapshot(attrs.evolve(SNAPSHOT, late=True))  # made anew, which the next start must know
    store.close()
    again, findings = FileStore(str(tmp_path)).load("boot")[1:]
    assert again.late
    assert [finding.code for finding in findings] == ["boot-snapshot-late"]
    assert FileStore(str(tmp_path)).load("next")[1:] == (None, [])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_snapshot_is_made_anew_and_proves_nothing(tmp_path, loss):
    """The whole engine: a function that no table names, on a host whose snapshot was lost."""
    stage = Stage()
    Engine(stage.host, stage.xen, FileStore(str(tmp_path)), stage.settings, lambda: NOW).save()
    FileStore(str(tmp_path)).save_snapshot(SNAPSHOT)
    LOSSES[loss](tmp_path / "boot")
    engine = Engine(stage.host, stage.xen, FileStore(str(tmp_path)), stage.settings, lambda: NOW)
    while engine.next_due() == 0.0:
        engine.reconcile(engine.take())
    assert engine.memory.boot.late
    assert engine.memory.boot.functions == frozenset(engine.machine.functions)
    assert "boot-snapshot-late" in [finding.code for _, finding in engine.findings]
    assert json.loads((tmp_path / "boot").read_text())["content"]["late"] is True


SINCE = "2026-12-01T10:00:00.000Z"


def marked(tmp_path):
    for name in ("state", "run"):
        (tmp_path / name).mkdir(exist_ok=True)
    return FileStore(str(tmp_path / "state"), UnsavedMark(str(tmp_path / "run"), lambda: SINCE))


def refuse_files(monkeypatch, store):
    """Let the state directory take nothing."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for document in (store._ledger, store._mappings):
        monkeypatch.setattr(document, "save", full)
        monkeypatch.setattr(document, "append", full)


def test_a_service_that_could_not_write_tells_the_next_one(tmp_path, monkeypatch):
    store = marked(tmp_path)
    store.load("boot")
    store.save(LEDGER)
    assert marked(tmp_path).load("boot")[0].messages_lost is None
    refuse_files(monkeypatch, store)
    with pytest.raises(OSError, match="No space"):
        store.append([])
    assert (tmp_path / "run" / "unsaved").exists()
    assert marked(tmp_path).load("another boot")[0].messages_lost is None
    following = marked(tmp_path)
    ledger = following.load("boot")[0]
    assert ledger.messages_lost == SINCE
    following.save(ledger)
    assert (tmp_path / "run" / "unsaved").exists()  # the ledger's file does not tell of it
    following.save_mappings(ledger)
    assert not (tmp_path / "run" / "unsaved").exists()
    assert marked(tmp_path).load("boot")[0].messages_lost == SINCE


def test_what_was_written_in_the_end_leaves_no_mark(tmp_path, monkeypatch):
    store = marked(tmp_path)
    ledger = store.load("boot")[0]
    with monkeypatch.context() as broken:
        refuse_files(broken, store)
        for write in (store.save, store.save_mappings):
            with pytest.raises(OSError, match="No space"):
                write(ledger)
    store.save(ledger)
    assert (tmp_path / "run" / "unsaved").exists()
    store.save_mappings(ledger)
    assert os.listdir(tmp_path / "run") == []


def test_without_a_place_for_the_mark_the_error_is_the_disks(tmp_path, monkeypatch):
    store = FileStore(str(tmp_path), UnsavedMark(str(tmp_path / "nowhere"), lambda: SINCE))
    ledger = store.load("boot")[0]
    with monkeypatch.context() as broken:
        refuse_files(broken, store)
        with pytest.raises(OSError, match="No space"):
            store.save(ledger)
    store.save(ledger)
    store.close()
