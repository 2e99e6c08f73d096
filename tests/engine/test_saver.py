"""The files of the store: each fails alone, each is a finding until it is written."""

import errno

import pytest

from pcipt.engine.memory import Memory
from pcipt.engine.saver import Saver
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.pci import decode_machine
from pcipt.remap.ledger import Ledger

BOOT = snapshot_from_machine("boot", decode_machine([]))
LEDGER, MAPPINGS, SNAPSHOT, STEPS = "save", "save_mappings", "save_snapshot", "append"


class Files:
    """`full` are the documents that cannot be written; `written` what was written with what."""

    is_long = False

    def __init__(self, *full):
        self.full = {name: OSError(errno.ENOSPC, "No space left on device") for name in full}
        self.written = []

    def _write(self, name, value):
        if name in self.full:
            raise self.full[name]
        self.written.append((name, value))

    def append(self, steps):
        self._write(STEPS, list(steps))

    def save(self, ledger):
        self._write(LEDGER, ledger)

    def save_mappings(self, ledger):
        self._write(MAPPINGS, ledger)

    def save_snapshot(self, boot):
        self._write(SNAPSHOT, boot)

    def close(self):
        self.written.append(("close", None))


def memory(boot=BOOT):
    return Memory(Ledger("boot"), boot=boot)


def codes(saver):
    return [finding.code for finding in saver.findings]


def test_ledger_and_mappings_are_written_and_a_written_snapshot_is_not_written_again():
    files, held = Files(), memory()
    saver = Saver(files)
    assert saver.save_boot(BOOT) is True
    assert saver.save(held) is True
    assert files.written == [(SNAPSHOT, BOOT), (MAPPINGS, held.ledger), (LEDGER, held.ledger)]
    assert codes(saver) == []


@pytest.mark.parametrize(
    ("fails", "written", "code"),
    [(LEDGER, MAPPINGS, "ledger-unsaved"), (MAPPINGS, LEDGER, "mappings-unsaved")],
)
def test_a_file_that_fails_keeps_no_other_from_being_written(fails, written, code):
    files = Files(fails)
    saver = Saver(files)
    assert saver.save(memory()) is False
    assert [name for name, _ in files.written] == [written]
    assert codes(saver) == [code]
    files.full.clear()
    assert saver.save(memory()) is True
    assert codes(saver) == []


def test_a_boot_snapshot_that_could_not_be_written_is_written_with_the_rest():
    files = Files(SNAPSHOT)
    saver = Saver(files)
    assert saver.save_boot(BOOT) is False
    assert codes(saver) == ["boot-snapshot-unsaved"]
    assert saver.save(memory()) is False
    assert codes(saver) == ["boot-snapshot-unsaved"]
    files.full.clear()
    assert saver.save(memory()) is True
    assert files.written[-1] == (SNAPSHOT, BOOT)
    assert codes(saver) == []


def test_without_a_boot_snapshot_none_is_written():
    files = Files(SNAPSHOT)
    saver = Saver(files)
    saver.save_boot(BOOT)
    assert saver.save(memory(boot=None)) is True


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("the disk is on fire"), "the disk is on fire"),
    ],
)
def test_the_finding_says_which_file_why_and_what_helps(error, why):
    files = Files(LEDGER)
    files.full[LEDGER] = error
    saver = Saver(files)
    saver.save(memory())
    (finding,) = saver.findings
    assert finding.text == f"the ledger cannot be saved ({why}): free space on the disk, then pcipt resync"


def test_all_files_that_fail_are_findings():
    saver = Saver(Files(LEDGER, MAPPINGS, SNAPSHOT))
    saver.save_boot(BOOT)
    assert saver.save(memory()) is False
    assert sorted(codes(saver)) == ["boot-snapshot-unsaved", "ledger-unsaved", "mappings-unsaved"]


def test_closing_closes_the_store():
    files = Files()
    Saver(files).close()
    assert files.written == [("close", None)]


def test_held_steps_are_written_with_the_next_steps_and_before_them():
    files = Files()
    saver = Saver(files)
    saver.hold(["seen"])
    saver.append(["intended"])
    assert saver.write_held() is True
    assert files.written == [(STEPS, ["seen", "intended"])]


def test_held_steps_are_written_alone_if_nothing_else_is():
    files = Files()
    saver = Saver(files)
    saver.hold(["seen"])
    assert files.written == []
    assert saver.write_held() is True
    assert saver.write_held() is True
    assert files.written == [(STEPS, ["seen"])]


def test_a_ledger_that_is_written_as_a_whole_includes_the_held_steps():
    files, held = Files(), memory()
    saver = Saver(files)
    saver.hold(["seen"])
    assert saver.save(held) is True
    assert saver.write_held() is True
    assert [name for name, _ in files.written] == [MAPPINGS, LEDGER]


def test_held_steps_stay_held_while_they_cannot_be_written():
    files = Files(STEPS)
    saver = Saver(files)
    saver.hold(["seen"])
    with pytest.raises(OSError, match="No space"):
        saver.append(["intended"])
    assert saver.write_held() is False
    assert codes(saver) == ["ledger-unsaved"]
    files.full.clear()
    assert saver.write_held() is True
    assert codes(saver) == []
    assert files.written == [(STEPS, ["seen"])]
