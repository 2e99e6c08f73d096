"""Actions and outcomes as JSON; changes are shown by the tests of `pcipt decode`."""

import pytest

from pcipt.pci import Address
from pcipt.remap.actions import (
    AddDevice,
    CheckUnmapped,
    Outcome,
    RemoveDevice,
    RestoreReserved,
    Result,
    RewriteBar,
    WithdrawReserved,
)
from pcipt.remap.writes.json_view import json_from_outcome
from tests.remap.devices import S, frames, map_of, unmap_of

NIC = S("01:00.0")
REGION = frames(0x7D00_0000, 4)


@pytest.mark.parametrize(
    ("action", "start", "size"),
    [
        (AddDevice(NIC, "why"), None, None),
        (RemoveDevice(NIC, "why"), None, None),
        (map_of("00_1c.0-00_00.0", 0xE000_0000, 4), "0xe0000000", 0x4000),
        (unmap_of("00_1c.0-00_00.0", 1 << 40, 1), "0x10000000000", 0x1000),
        (RewriteBar(NIC, "why", 0, Address(1 << 20), Address(1 << 21), 0x100), "0x200000", 0x100),
        (WithdrawReserved(NIC, "why", REGION), "0x7d000000", 0x4000),
        (RestoreReserved(NIC, "why", REGION), "0x7d000000", 0x4000),
        (CheckUnmapped(NIC, "why", REGION, region=False), "0x7d000000", 0x4000),
    ],
)
def test_an_outcome(action, start, size):
    body = json_from_outcome(Outcome(action, Result.DONE))
    wanted = {"action": action.word, "sbdf": "0000:01:00.0", "start": start, "size": size, "reason": "why",
              "result": "done"}  # fmt: skip
    assert {key: body[key] for key in wanted} == wanted
    assert "rule" not in body


def test_a_refusal_names_its_rule():
    body = json_from_outcome(Outcome(AddDevice(NIC, "why"), Result.REFUSED, "it touches RAM", "protected"))
    assert (body["result"], body["rule"], body["detail"]) == ("refused", "protected", "it touches RAM")
