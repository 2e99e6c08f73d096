import json

from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import parse_sbdf
from pcipt.remap.actions import AddDevice
from pcipt.remap.ledger import Event, Ledger
from pcipt.service.documents import Document
from pcipt.service.keeper import Keeper

PORT = parse_sbdf("00:1c.0")
LEDGER = Ledger("boot").step(AddDevice(PORT, "why"), Event.INTEND)
SNAPSHOT = BootSnapshot("boot", frozenset({PORT}), {PORT: (1, 4)})


def saved(tmp_path):
    keeper = Keeper(str(tmp_path))
    keeper.save(LEDGER)
    keeper.save_snapshot(SNAPSHOT)
    return Keeper(str(tmp_path))


def test_both_papers_come_back_in_the_same_boot(tmp_path):
    assert saved(tmp_path).load("boot") == (LEDGER, SNAPSHOT, [])


def test_another_boot_starts_afresh(tmp_path):
    assert saved(tmp_path).load("other") == (Ledger("other"), None, [])


def test_nothing_there_is_nothing_wrong(tmp_path):
    assert Keeper(str(tmp_path)).load("boot") == (Ledger("boot"), None, [])


def test_damaged_papers_are_said_and_replaced(tmp_path):
    keeper = saved(tmp_path)
    (tmp_path / "ledger").write_text("{")
    (tmp_path / "boot").write_text("{")
    ledger, snapshot, findings = keeper.load("boot")
    assert (ledger, snapshot) == (Ledger("boot"), None)
    assert [finding.code for finding in findings] == ["ledger-damaged", "boot-snapshot-damaged"]


def test_a_sound_document_that_is_no_ledger_is_said(tmp_path):
    Document(str(tmp_path / "ledger"), "ledger").save({"entries": 3})
    Document(str(tmp_path / "boot"), "boot").save({"bridges": {"x": [1]}, "functions": [], "boot_id": "boot"})
    ledger, snapshot, findings = Keeper(str(tmp_path)).load("boot")
    assert (ledger, snapshot) == (Ledger("boot"), None)
    assert [finding.code for finding in findings] == ["ledger-damaged"]
    assert "not a ledger" in findings[0].text


def test_the_files_can_be_read_by_people(tmp_path):
    saved(tmp_path)
    whole = json.loads((tmp_path / "ledger").read_text())
    assert whole["content"]["entries"][0]["sbdf"] == "0000:00:1c.0"
