"""admit on a made-up sysfs, with a made-up toolstack and a daemon that gives fixed answers."""

import pytest

from pcipt.errors import NotPermittedError, StateError
from tests.cli.commands.passthrough.test_release import scene  # noqa: F401 - a fixture
from tests.toolstack import ANSWERS, NIC, told

WAITS = {
    "findings": [{"sbdf": NIC, "code": "waits-for-admit", "text": "it waits"}],
    "given_away": [{"sbdf": NIC, "owner": "quarantine"}],
}


@pytest.fixture
def waiting(scene):  # noqa: F811
    """The NIC is in quarantine, because it appeared below a policed port."""
    (scene.root / "sys/bus/pci/drivers/pciback").mkdir()
    scene.drive(NIC, "pciback")
    scene.answers |= {"Status": WAITS, "Release": told("dom0")}
    return scene


def test_the_daemon_is_told_first_then_the_function_returns_as_reclaim_does_it(waiting, capsys):
    (waiting.root / f"noted-{NIC}").write_text("e1000e")
    assert waiting.run("admit", NIC) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"admit {NIC}: done",
        f"restore the regions that are reserved for {NIC}: done",
        f"give {NIC} back to dom0: done",
        f"{NIC}: dom0; regions: 0x7fff0000 withdrawn",
    ]
    assert waiting.driver(NIC) == "e1000e"
    assert waiting.log() == [f"pci-assignable-remove -r {NIC}"]


def test_reclaim_names_admit_and_does_nothing(waiting):
    with pytest.raises(
        StateError, match=f"appeared below a policed port; give it to dom0: `pcipt admit {NIC}"
    ):
        waiting.run("reclaim", NIC)
    assert (waiting.driver(NIC), waiting.log()) == ("pciback", [])


def test_what_cannot_be_given_back_is_not_admitted_either(waiting):
    waiting.make("stuck", NIC)
    with pytest.raises(StateError, match="all steps are undone"):
        waiting.run("admit", NIC)
    assert waiting.driver(NIC) == "pciback"


def test_a_dry_run_shows_the_steps_and_tells_the_daemon_nothing(waiting, capsys):
    del waiting.answers["Admit"]
    assert waiting.run("admit", "--dry-run", NIC) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"admit {NIC}: planned"
    assert waiting.log() == []


def test_only_root_may(waiting, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NotPermittedError, match="pcipt admit"):
        waiting.run("admit", NIC)


def test_what_dom0_has_already_is_only_admitted(waiting, capsys):
    waiting.drive(NIC, "e1000e")
    waiting.answers["Status"] = ANSWERS["Status"]
    assert waiting.run("admit", NIC) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"admit {NIC}: done"
    assert waiting.log() == []
