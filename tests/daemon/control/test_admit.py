"""The daemon lets dom0 have what has appeared below a policed port, and remembers it on disk."""

import pytest

from pcipt.daemon.control.passthrough import Passthrough
from pcipt.engine.queue import Reason
from pcipt.errors import StateError
from tests.engine.stage import S, codes, look
from tests.engine.test_policed_ports import DISK, NIC, OTHER, PORT, Policed, nic


@pytest.fixture
def asked():
    stage = Policed(raws=[nic(DISK, OTHER, 0xFD20_0000)])
    stage.appear(nic())
    stage.rest()
    stage.passthrough = Passthrough(
        stage.engine, lambda functions: look(stage.engine, functions, Reason.REQUESTED), lambda _act: None
    )
    return stage


def test_an_admission_is_on_disk_when_it_is_answered(asked):
    told = asked.passthrough.admit(S(NIC), admitted=True)
    assert (told["sbdf"], told["owner"], told["actions"]) == ("0000:02:00.0", "quarantine", [])
    assert [str(each.sbdf) for each in asked.store.ledger.ports.admitted.values()] == ["0000:02:00.0"]
    look(asked.engine, [S(NIC)])
    assert "waits-for-admit" not in codes(asked.engine)


def test_it_can_be_taken_back(asked):
    asked.passthrough.admit(S(NIC), admitted=True)
    asked.passthrough.admit(S(NIC), admitted=False)
    assert asked.store.ledger.ports.admitted == {}
    assert "waits-for-admit" in codes(asked.engine)


@pytest.mark.parametrize("address", [DISK, PORT])
def test_what_is_not_below_a_policed_port_needs_no_admission(asked, address):
    with pytest.raises(StateError, match="needs no admission"):
        asked.passthrough.admit(S(address), admitted=True)
    assert asked.store.ledger.ports.admitted == {}
