"""How the guide is filled from the lab, on a machine that only notes what it is asked."""

import pytest

from tests.lab.errors import LabError
from tests.lab.fill_guide import QUIET, fill

PAGE = """Text.

<!-- lab pvh
qmp device_add driver=e1000e id=nic
event DEVICE_ADDED device=nic
wait test -e /there
run touch it
-->
```console
$ pcipt status | head -1
an old output
$ pcipt list
```

<!-- lab pv -->
```console
$ pcipt status
kept
```

<!-- lab pvh -->
```console
$ pcipt tree
```
"""


class Done:
    def __init__(self, stdout):
        self.stdout = stdout


class Notes:
    """Stands for a dom0 and for QEMU's control socket."""

    mode = "pvh"

    def __init__(self):
        self.told = []
        self.control = self

    def run(self, command, **_options):
        if command != QUIET:
            self.told.append(("run", command))
        return Done(f"line 1 of {command}\n$ line 2\n")

    def wait_for(self, command, **_options):
        self.told.append(("wait", command))

    def qmp(self, command, **values):
        self.told.append(("qmp", command, values))

    def wait_event(self, name, _timeout, **values):
        self.told.append(("event", name, values))


def test_the_blocks_of_its_mode_are_filled_in_their_order(tmp_path):
    page, notes = tmp_path / "page.md", Notes()
    page.write_text(PAGE)
    fill(notes, [page])
    asked = ["{ pcipt status | head -1; } 2>&1", "{ pcipt list; } 2>&1", "{ pcipt tree; } 2>&1"]
    assert notes.told == [
        ("qmp", "device_add", {"driver": "e1000e", "id": "nic"}),
        ("event", "DEVICE_ADDED", {"device": "nic"}),
        ("wait", "test -e /there"),
        ("run", "touch it"),
        *(("run", command) for command in asked),
    ]
    status, listed, tree = (f"line 1 of {command}\n$ line 2\n" for command in asked)
    expected = PAGE.replace("an old output\n", status).replace("$ pcipt list\n", f"$ pcipt list\n{listed}")
    assert page.read_text() == expected.replace("$ pcipt tree\n", f"$ pcipt tree\n{tree}")


def test_an_unknown_word_is_told(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("qmp device_add", "plug device_add"))
    with pytest.raises(LabError, match="'plug device_add driver=e1000e id=nic'; expected qmp, event"):
        fill(Notes(), [page])
