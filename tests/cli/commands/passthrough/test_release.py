"""release and reclaim on a made-up sysfs, with a made-up toolstack and a daemon that gives fixed answers."""

import contextlib
import errno
import json
import os
import signal
import threading

import pytest

from pcipt.cli.commands.passthrough import release
from pcipt.cli.machine import handover
from pcipt.daemon.control import protocol
from pcipt.errors import AddressError, NoSuchDeviceError, NotPermittedError, NotRunningError, StateError
from pcipt.firmware.passthrough.host import HostFacts, IommuKind, TablesSay, XenSays
from pcipt.firmware.passthrough.host_rules import NOTHING_KNOWN, judge_host
from pcipt.firmware.passthrough.host_view import host_to_json
from pcipt.firmware.passthrough.reasons import Guest, Verdict
from pcipt.firmware.passthrough.reasons import Reason as HostReason
from pcipt.pci import parse_sbdf
from pcipt.xen.releases import parse_version
from tests.toolstack import ANSWERS, DISK, NIC, REGION, fake_toolstack, told

ACTION = {"action": "withdraw-reserved", "sbdf": NIC, "result": "failed", "detail": "Xen said EPERM"}


@pytest.fixture
def scene(tmp_path, monkeypatch, daemon):
    fake = fake_toolstack(tmp_path, monkeypatch)
    fake.path, fake.answers = daemon
    fake.answers |= ANSWERS
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return fake


def test_released_and_reclaimed(scene, capsys):
    assert scene.run("release", NIC) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "load xen-pciback: done",
        f"give {NIC} from e1000e to xen-pciback: done",
        f"withdraw the regions that are reserved only for {NIC}: done",
        f"{NIC}: quarantine; regions: 0x7fff0000 withdrawn",
    ]
    assert scene.driver(NIC) == "pciback"
    scene.answers["Release"] = told("dom0")
    assert scene.run("reclaim", NIC) == 0
    assert scene.driver(NIC) == "e1000e"
    assert scene.log() == [
        "modprobe xen-pciback", f"pci-assignable-add {NIC}", f"pci-assignable-remove -r {NIC}",
    ]  # fmt: skip


def test_on_pv_no_region_is_withdrawn_and_that_is_said(scene, capsys):
    region = {**REGION, "mapped": "not-applicable"}
    scene.answers["Status"] = {**scene.answers["Status"], "dom0": "pv"}
    scene.answers["Release"] = told(regions=[region])
    assert scene.run("release", NIC) == 0
    ends = f"{REGION['start']} cannot be withdrawn: dom0 is PV and reaches it as before"
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"give {NIC} from e1000e to xen-pciback: done",
        f"ask Xen who has {NIC}: done",
        f"{NIC}: quarantine; {ends}",
    ]
    scene.answers["Status"]["given_away"] = [{"sbdf": NIC, "owner": "quarantine"}]
    scene.answers["Release"] = told("dom0", regions=[region])
    assert scene.run("reclaim", NIC) == 0
    out = capsys.readouterr().out
    assert "restore" not in out
    assert out.endswith(f"{NIC}: dom0; {ends}\n")


@pytest.mark.parametrize("command", ["release", "reclaim"])
@pytest.mark.parametrize("text", ["*", "02:", "02:00", "00:", ".0", "*:00.*", "02:*.0", "::*.*"])
def test_a_set_that_is_not_one_device_is_not_taken(scene, command, text):
    with pytest.raises(AddressError, match=r"names a set; .*as in 03:00\.\*"):
        scene.run(command, text)
    assert scene.log() == []


@pytest.mark.parametrize("command", ["release", "reclaim"])
def test_the_colon_typed_for_the_point_is_told_with_the_function(scene, command):
    typed = NIC[5:].replace(".", ":")
    with pytest.raises(AddressError, match=rf"{typed}: it names a set; .* \(did you mean {NIC}\?\)"):
        scene.run(command, typed)
    assert scene.log() == []


def test_all_functions_of_a_device_are_taken(scene):
    text = NIC[5:-1] + "*"
    assert scene.run("release", "--dry-run", text) == 0
    with pytest.raises(NoSuchDeviceError):
        scene.run("release", "1f:00.*")


def test_what_is_in_the_place_of_another_function_that_the_policy_keeps_is_not_released(scene, capsys):
    finding = {"sbdf": NIC, "code": "policy-mismatch", "text": "the policy keeps another one"}
    scene.answers["Status"] = {**ANSWERS["Status"], "findings": [finding]}
    with pytest.raises(
        StateError,
        match=f"{NIC} is not released: the policy keeps another one; `pcipt policy list` ",
    ):
        scene.run("release", NIC)
    assert scene.log() == []
    assert scene.run("release", "--force", NIC) == 0
    assert scene.driver(NIC) == "pciback"


AWAY = {"findings": [], "given_away": [{"sbdf": NIC, "owner": "quarantine"}]}


@pytest.fixture
def pciback(scene):
    """Load xen-pciback."""
    directory = scene.root / "sys/bus/pci/drivers/pciback"
    directory.mkdir()
    return directory


def test_what_is_away_already_is_only_looked_at(scene, pciback):
    scene.drive(NIC, "pciback")
    scene.answers["Status"] = AWAY
    assert scene.run("release", NIC) == 0
    scene.drive(NIC, "e1000e")
    scene.answers |= {"Status": ANSWERS["Status"], "Release": told("dom0")}
    assert scene.run("reclaim", NIC) == 0
    assert scene.log() == []


@pytest.mark.parametrize(("command", "owner"), [("release", "dom0"), ("reclaim", "quarantine")])
def test_what_xen_has_otherwise_than_xl_says_is_told(scene, pciback, command, owner, capsys):
    scene.drive(NIC, "e1000e" if command == "release" else "pciback")
    scene.answers["Release"] = told(owner)
    assert scene.run(command, NIC) == 4
    assert f"{NIC}: all steps are done, but it belongs to {owner}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["release", "reclaim"])
@pytest.mark.parametrize("owner", ["dom0", "quarantine"])
def test_an_owner_that_cannot_be_looked_at_is_told_and_no_failure(scene, pciback, command, owner, capsys):
    scene.drive(NIC, "e1000e" if command == "release" else "pciback")
    scene.answers["Release"] = {**told(owner), "owner_told": False}
    assert scene.run(command, NIC) == 0
    said = capsys.readouterr()
    assert f"{NIC}: owner not known" in said.out
    wanted = "quarantine" if command == "release" else "dom0"
    assert f"{NIC}: all steps are done; it is not known whether {wanted} owns it" in said.err


def test_what_was_hidden_at_boot_is_quarantined(scene, pciback, capsys):
    """xen-pciback.hide= binds a function and leaves it dom0's."""
    scene.drive(NIC, "pciback")
    scene.answers["Status"] = {"findings": [], "given_away": [{"sbdf": NIC, "owner": "dom0"}]}
    assert scene.run("release", NIC) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"quarantine {NIC}: done"
    assert scene.log() == [f"pci-assignable-add {NIC}"]


def test_what_was_hidden_is_hidden_again(scene, pciback):
    scene.drive(NIC, "pciback")
    scene.answers["Release"] = told(actions=[ACTION])
    with pytest.raises(StateError, match="all steps are undone"):
        scene.run("release", NIC)
    assert scene.log() == [f"pci-assignable-add {NIC}", f"pci-assignable-remove {NIC}"]
    assert [(pciback / name).read_text() for name in ("new_slot", "bind")] == [NIC, NIC]


def test_a_quarantine_that_xen_refuses_leaves_what_was_hidden(scene, pciback):
    scene.drive(NIC, "pciback")
    scene.make("refuse", NIC)
    with pytest.raises(StateError, match="all steps are undone"):
        scene.run("release", NIC)
    assert scene.log() == [f"pci-assignable-add {NIC}"]


def test_a_quarantine_that_xen_refuses_gives_the_driver_back(scene, pciback):
    """xl binds first; what it could not quarantine it does not take back either."""
    scene.make("unfit", NIC)
    with pytest.raises(StateError, match="failed to quarantine; all steps are undone"):
        scene.run("release", NIC)
    assert [(pciback / name).read_text() for name in ("unbind", "remove_slot")] == [NIC, NIC]
    assert (scene.root / "sys/bus/pci/drivers/e1000e/bind").read_text() == NIC


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_controller_whose_release_would_take_the_host_down_stays(scene, force):
    about = {"sbdf": NIC, "text": "this Xen panics when it leaves Linux"}
    cut = {"controller": NIC, "panics": True, "functions": [], **about}
    scene.answers["Status"] = {
        "findings": [{"code": "orphan", **about}], "given_away": [], "cut_segments": [cut],
    }  # fmt: skip
    with pytest.raises(
        StateError, match=r"panics when it leaves Linux; `reboot`.*; --force does not change that"
    ):
        scene.run("release", *force, NIC)
    scene.answers["Status"]["cut_segments"][0]["panics"] = False
    assert scene.run("release", NIC) == 0


def test_what_is_quarantined_without_a_driver_comes_back(scene):
    (scene.root / "sys/bus/pci/devices" / NIC / "driver").unlink()
    scene.answers |= {"Status": AWAY, "Release": told("dom0")}
    assert scene.run("reclaim", NIC) == 0
    assert scene.log() == [f"pci-assignable-remove -r {NIC}"]


def test_what_had_no_driver_has_none_again(scene, pciback):
    """Also where xl noted one earlier: pci-assignable-remove without -r leaves its note."""
    (scene.root / "sys/bus/pci/devices" / NIC / "driver").unlink()
    (scene.root / f"noted-{NIC}").write_text("e1000e\n")
    scene.answers["Release"] = told(actions=[ACTION])
    with pytest.raises(StateError, match="all steps are undone"):
        scene.run("release", NIC)
    assert scene.driver(NIC) is None


def test_a_module_that_does_not_load_is_not_unloaded(scene):
    scene.make("refuse", "xen-pciback")
    with pytest.raises(StateError, match=r"load xen-pciback: .*not found; all steps are undone"):
        scene.run("release", NIC)
    assert scene.log() == ["modprobe xen-pciback"]


def test_a_module_that_another_needs_meanwhile_stays(scene):
    """Two releases at once: unloading would take from the other what it has just been given."""
    scene.make("shared", "xen-pciback")
    scene.make("refuse", NIC)
    with pytest.raises(StateError, match="all steps are undone"):
        scene.run("release", NIC)
    assert scene.log() == ["modprobe xen-pciback", f"pci-assignable-add {NIC}"]


@pytest.mark.parametrize("trouble", [None, "drivers_probe"])
def test_what_was_hidden_at_boot_comes_back(scene, pciback, trouble):
    """xl takes back only what is quarantined."""
    scene.drive(NIC, "pciback")
    scene.make("unfit", NIC)
    scene.answers["Status"] = {"findings": [], "given_away": [{"sbdf": NIC, "owner": "dom0"}]}
    probe = scene.root / "sys/bus/pci/drivers_probe"
    if trouble is None:
        scene.answers["Release"] = told("dom0")
        assert scene.run("reclaim", NIC) == 0
        assert [(pciback / name).read_text() for name in ("unbind", "remove_slot")] == [NIC, NIC]
        assert probe.read_text() == NIC
    else:
        probe.unlink()
        probe.mkdir()
        with pytest.raises(StateError, match=r"drivers_probe: is a directory; all steps are undone"):
            scene.run("reclaim", NIC)
        assert [(pciback / name).read_text() for name in ("new_slot", "bind")] == [NIC, NIC]


@pytest.mark.parametrize("trouble", [None, "stuck"])
def test_what_the_initramfs_has_kept_is_for_any_driver_again(scene, pciback, trouble):
    """driver_override names xen-pciback, which would take it again, and xl has noted no driver."""
    scene.drive(NIC, "pciback")
    override = scene.root / "sys/bus/pci/devices" / NIC / "driver_override"
    override.write_text("pciback\n")
    scene.answers |= {"Status": AWAY, "Release": told("dom0" if trouble is None else "quarantine")}
    if trouble is None:
        assert scene.run("reclaim", NIC) == 0
        assert override.read_text() == "\n"
        assert (scene.root / "sys/bus/pci/drivers_probe").read_text() == NIC
    else:
        scene.make(trouble, NIC)
        with pytest.raises(StateError, match="all steps are undone"):
            scene.run("reclaim", NIC)
        assert override.read_text() == "pciback\n"


@pytest.mark.parametrize("override", ["(null)\n", "vfio-pci\n"])
def test_an_override_of_the_users_own_stays(scene, pciback, override):
    scene.drive(NIC, "pciback")
    file = scene.root / "sys/bus/pci/devices" / NIC / "driver_override"
    file.write_text(override)
    scene.answers |= {"Status": AWAY, "Release": told("dom0")}
    assert scene.run("reclaim", NIC) == 0
    assert file.read_text() == override


@pytest.mark.parametrize("owner", ["dom0", "quarantine"])
def test_what_xl_let_out_and_left_bound_is_quarantined_again(scene, pciback, owner):
    scene.drive(NIC, "pciback")
    scene.make("stuck", NIC)
    scene.answers |= {"Status": AWAY, "Release": told(owner)}
    with pytest.raises(StateError, match="still bound; all steps are undone"):
        scene.run("reclaim", NIC)
    again = [f"pci-assignable-add {NIC}"] if owner == "dom0" else []
    assert scene.log() == [f"pci-assignable-remove -r {NIC}", *again]


@pytest.mark.parametrize("command", ["release", "reclaim"])
def test_a_dry_run_shows_the_steps_and_does_nothing(scene, command, capsys):
    if command == "reclaim":
        scene.drive(NIC, "pciback")
    assert scene.run(command, "--dry-run", "--json=short", NIC) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["version"], answer["dry_run"], answer["result"]) == (1, True, "planned")
    assert {step["result"] for step in answer["steps"]} == {"planned"}
    assert scene.log() == []


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_the_disk_of_the_root_file_system_stays(scene, force):
    with pytest.raises(StateError, match=r"root file system of dom0.*--force does not change that"):
        scene.run("release", DISK, *force)
    assert scene.log() == []


def test_what_the_check_refuses_is_done_with_force(scene, capsys):
    (scene.root / "proc/self/mountinfo").unlink()
    with pytest.raises(StateError, match=r"it is not known.*`findmnt /`.*--force releases it anyway"):
        scene.run("release", "--json=short", NIC)
    assert json.loads(capsys.readouterr().out)["result"] == "refused"
    assert scene.run("release", "--force", NIC) == 0


def test_a_guests_function_is_neither_released_nor_reclaimed(scene):
    scene.answers["Status"] = {"findings": [], "given_away": [{"sbdf": NIC, "owner": "guest 3"}]}
    for command in ("release", "reclaim"):
        with pytest.raises(StateError, match="belongs to guest 3"):
            scene.run(command, NIC)
    assert scene.log() == []


ORPHAN = {"sbdf": NIC, "code": "orphan", "text": "it has no owner"}


@pytest.mark.parametrize(
    "status",
    [
        {"findings": [ORPHAN], "given_away": []},
        {"findings": [], "given_away": [{"sbdf": NIC, "owner": "nobody (orphan)"}]},
        {"findings": [ORPHAN], "given_away": [{"sbdf": NIC, "owner": "nobody (orphan)"}]},
    ],
)
@pytest.mark.parametrize("options", [[], ["--force"], ["--dry-run", "--force"]])
def test_an_orphan_is_never_bound_to_pciback(scene, status, options):
    scene.answers["Status"] = status
    with pytest.raises(
        StateError, match=r"orphan.*crashes a PVH host.*4\.20\.0.*--force does not change that"
    ):
        scene.run("release", NIC, *options)
    assert scene.log() == []
    assert scene.driver(NIC) == "e1000e"


def test_an_orphan_is_not_unbound_from_pciback(scene):
    scene.drive(NIC, "pciback")
    scene.answers["Status"] = {
        "findings": [ORPHAN],
        "given_away": [{"sbdf": NIC, "owner": "nobody (orphan)"}],
    }
    with pytest.raises(StateError, match=r"orphan\), and unbinding it crashes a PVH host.*4\.20\.0"):
        scene.run("reclaim", NIC)
    assert scene.log() == []
    assert scene.driver(NIC) == "pciback"


def test_what_xen_keeps_for_its_console_is_not_released(scene):
    scene.answers["Status"] = {"findings": [], "given_away": [{"sbdf": NIC, "owner": "Xen itself"}]}
    with pytest.raises(StateError, match=r"Xen keeps it for itself.*--force does not change that"):
        scene.run("release", "--force", NIC)
    assert scene.log() == []


#   what goes wrong with the NIC, what the daemon answers, words of the error
TROUBLE = [
    ("refuse", told(), "it cannot"),
    ("half", told(), "half way"),  # unbound from its driver, and then nothing
    (None, told(actions=[ACTION]), "withdraw-reserved 0000:00:03.0: Xen said EPERM"),
    (None, protocol.error("Failed", {"reason": "Xen cannot be asked"}), "Xen cannot be asked"),
]


@pytest.mark.parametrize(("trouble", "answer", "words"), TROUBLE)
def test_a_failing_step_leaves_all_as_it_was(scene, trouble, answer, words, capsys):
    scene.answers["Release"] = answer
    if trouble is not None:
        scene.make(trouble, NIC)
    with pytest.raises(StateError, match=f"{words}.*all steps are undone"):
        scene.run("release", "--json=short", NIC)
    assert json.loads(capsys.readouterr().out)["result"] == "failed"
    bound = (scene.root / "sys/bus/pci/drivers/e1000e/bind").read_text()
    if trouble == "half":  # the test's kernel binds nothing then: the command asks it to
        assert (scene.driver(NIC), bound) == (None, NIC)
    else:
        assert scene.driver(NIC) == "e1000e"
    assert not (scene.root / "sys/bus/pci/drivers/pciback").exists()


def test_the_second_of_two_functions_fails(scene):
    (scene.root / "proc/self/mountinfo").unlink()
    scene.make("refuse", DISK)
    with pytest.raises(StateError, match=f"give {DISK} to xen-pciback.*all steps are undone"):
        scene.run("release", "--force", NIC, DISK)
    assert scene.driver(NIC) == "e1000e"


def test_what_cannot_be_undone_is_said(scene):
    (scene.root / "proc/self/mountinfo").unlink()
    scene.make("refuse", DISK)
    scene.answers["Reclaim"] = protocol.error("Failed", {"reason": "the region cannot be put back"})
    with pytest.raises(StateError, match=r"undoing failed too: .*the region cannot be put back"):
        scene.run("release", "--force", NIC, DISK)


def test_a_region_that_cannot_return_stops_a_reclaim(scene, capsys):
    scene.drive(NIC, "pciback")
    scene.answers["Reclaim"] = protocol.error("Failed", {"reason": "EPERM"})
    with pytest.raises(
        StateError, match=f"restore the regions that are reserved for {NIC}: .*EPERM; all steps are undone"
    ):
        scene.run("reclaim", NIC, "--json=short")
    assert json.loads(capsys.readouterr().out)["steps"] == [
        {"step": f"restore the regions that are reserved for {NIC}", "result": "failed"}
    ]
    assert scene.log() == []


def test_a_reclaim_that_fails_gives_back_what_it_took(scene):
    for address in (NIC, DISK):
        scene.drive(address, "pciback")
    scene.make("refuse", DISK)
    with pytest.raises(StateError, match="all steps are undone"):
        scene.run("reclaim", NIC, DISK)
    assert (scene.driver(NIC), scene.driver(DISK)) == ("pciback", "pciback")


def test_only_root_may(scene, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for command in ("release", "reclaim"):
        with pytest.raises(NotPermittedError):
            scene.run(command, NIC)
        assert scene.run(command, "--dry-run", NIC) == 0


def test_the_daemon_is_needed_and_the_function(scene, tmp_path):
    scene.path = str(tmp_path / "nobody")
    for command in ("release", "reclaim"):
        with pytest.raises(NotRunningError):
            scene.run(command, NIC)
        with pytest.raises(NoSuchDeviceError):
            scene.run(command, "00:1f.7")


@pytest.mark.parametrize("number", handover.INTERRUPTIONS)
def test_an_interruption_waits_for_the_step_and_undoes_all(number):
    seen = []

    def interrupted():
        os.kill(os.getpid(), number)
        seen.append("do 2")

    steps = [
        handover.Step("one", lambda: seen.append("do 1"), lambda: seen.append("undo 1")),
        handover.Step("two", interrupted, lambda: seen.append("undo 2")),
        handover.Step("three", lambda: seen.append("do 3")),
    ]
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        handover.Steps(dry_run=False, quiet=True).run(steps)
    assert seen == ["do 1", "do 2", "undo 2", "undo 1"]
    assert signal.getsignal(number) is before


def test_an_interruption_that_cannot_be_undone_is_said(capsys):
    def fail():
        raise StateError("it stays away")

    steps = [handover.Step("one", lambda: os.kill(os.getpid(), signal.SIGINT), fail)]
    with pytest.raises(KeyboardInterrupt):
        handover.Steps(dry_run=False, quiet=False).run(steps)
    out, err = capsys.readouterr()
    assert out == "one: interrupted\n"
    assert err == "pcipt: interrupted: undoing failed too: it stays away\n"


@pytest.mark.parametrize("trouble", [BrokenPipeError(errno.EPIPE, ""), OSError(errno.ENOSPC, "")])
def test_nobody_need_read_for_all_to_be_done(scene, trouble, monkeypatch):
    def refuse(_text):
        raise trouble

    scene.drive(NIC, "e1000e")
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout.write", refuse)
        with pytest.raises(OSError, match=r"\[Errno"):  # of the summary: main() ends quietly
            scene.run("release", NIC)
    assert scene.log() == ["modprobe xen-pciback", f"pci-assignable-add {NIC}"]
    assert scene.driver(NIC) == "pciback"


@pytest.mark.parametrize("ends", ["before", "while", "never"])
def test_a_function_is_taken_back_once_whenever_the_daemon_ends(monkeypatch, ends):
    @contextlib.contextmanager
    def held(_socket, _sbdf):
        if ends == "before":
            raise NotRunningError("/run", "no such file")
        yield {}
        if ends == "while":
            raise NotRunningError("/run", "it has closed the connection")

    monkeypatch.setattr(release, "regions_held", held)
    calls = []
    release._with_regions("/run", parse_sbdf(NIC), lambda: calls.append("back"))
    assert calls == ["back"]


def pv_host(tables=None, **said):
    version = parse_version("4.20.4")
    return HostFacts(True, Guest.PV, "4.20.4", version, tables=tables, said=XenSays(iommu=False, **said))


BAD_TABLE = TablesSay(
    IommuKind.AMD_VI,
    accepted=False,
    remaps=False,
    reasons=(HostReason("ivrs-io-apic-missing", Verdict.REFUSE, "it lacks one", "newer firmware"),),
)


HOSTS = {
    # what the host cannot do: reason, and whether --force goes on
    "pvh-dom0": (HostFacts(True, Guest.PVH, "4.17.7", parse_version("4.17.7")), True),
    "pvh-dom0-linux": (HostFacts(True, Guest.PVH, "4.20.4", parse_version("4.20.4"), "6.1.0"), True),
    "no-iommu": (pv_host(), False),
    "iommu-off": (pv_host(iommu_off="iommu=off"), False),
    "ivrs-io-apic-missing": (pv_host(BAD_TABLE), False),
}


@pytest.mark.parametrize("code", HOSTS)
def test_what_can_lead_nowhere_is_refused_unless_forced(scene, code, capsys):
    facts, forced = HOSTS[code]
    host = judge_host(facts)
    reason = host.reasons[0]
    scene.answers["Status"] = {**ANSWERS["Status"], "host": host_to_json(host)}
    with pytest.raises(StateError) as caught:
        scene.run("release", NIC)
    said = str(caught.value)
    assert (reason.code, reason.text in said, reason.cure in said) == (code, True, True)
    assert ("--force releases it anyway" in said, "--force does not change that" in said) == (
        forced,
        not forced,
    )
    assert (scene.driver(NIC), scene.log()) == ("e1000e", [])
    if not forced:
        with pytest.raises(StateError, match="--force does not change that"):
            scene.run("release", "--force", NIC)
        return
    assert scene.run("release", "--force", NIC) == 0
    assert scene.driver(NIC) == "pciback"
    assert f"{NIC}: {code}: {reason.text}" in capsys.readouterr().err


def test_what_is_not_known_of_the_host_refuses_nothing(scene):
    scene.answers["Status"] = {**ANSWERS["Status"], "host": host_to_json(NOTHING_KNOWN)}
    assert scene.run("release", NIC) == 0


def test_two_handovers_at_once_wait_for_each_other(tmp_path, capsys):
    """What the second one looks at is what the first one has left."""
    control, seen = str(tmp_path / "control"), []

    def second():
        with handover.alone(control, dry_run=False):
            seen.append("second")

    with handover.alone(control, dry_run=False):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        with handover.alone(control, dry_run=True):
            seen.append("dry run")
        seen.append("first")
    thread.join(10)
    assert seen == ["dry run", "first", "second"]
    assert capsys.readouterr().err == (
        "pcipt: another `pcipt release` or `pcipt reclaim` is running; pcipt waits until it has ended\n"
    )
    assert os.stat(tmp_path / "handover.lock").st_mode & 0o777 == 0o600  # no other user can hold it


@pytest.mark.parametrize("command", ["release", "reclaim"])
def test_an_interruption_is_told_in_json_as_well(scene, command, monkeypatch, capsys):
    def interrupted(steps, _given):
        steps.told.append({"step": "one", "result": "interrupted"})
        raise KeyboardInterrupt

    monkeypatch.setattr(handover.Steps, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scene.run(command, NIC, "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["result"], told["steps"]) == ("interrupted", [{"step": "one", "result": "interrupted"}])
