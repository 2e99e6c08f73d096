"""`pcipt policy`: on a machine of files, from the first entry to another device in its place."""

import json
import os
import shutil

import pytest

from pcipt.cli.main import main
from tests.pci.spaces import extended_list, space, standard_list
from tests.trees import add

PORT = "pci0000:00/0000:00:1c.0"
PATH = "00_1c.0-00_00.0"
SERIAL = "00-1b-21-ff-ff-30-4c-d8"


def card(serial=0x001B21FF, device=0x1533):
    """Make the files of a NIC with a serial number."""
    body = {4: (4, 0xFF304CD8), 8: (4, serial)}
    data = space(
        standard_list((0x40, 0x10, {2: (2, 2)})) | extended_list((0x100, 3, body)), size=4096, device=device
    )
    return {
        "config": data,
        "device": f"0x{device:04x}\n",
        "revision": "0x03\n",
        "subsystem_vendor": "0x15d9\n",
    }


def machine(place, *, bus=3, nic=None, port="0000:00:1c.0"):
    """Make a port with a NIC behind it, on bus `bus`."""
    shutil.rmtree(place, ignore_errors=True)
    add(place, "pci0000:00/0000:00:00.0", **{"class": "0x060000\n"})
    (place / "sys/devices/pci0000:00/firmware_node").mkdir()
    (place / "sys/devices/pci0000:00/firmware_node/path").write_text("\\_SB_.PCI0\n")
    bridge = space({0x18: (4, bus << 16 | bus << 8)}, header=1)
    add(place, f"pci0000:00/{port}", config=bridge, **{"class": "0x060400\n"})
    add(place, f"pci0000:00/{port}/0000:{bus:02x}:00.0", nic or card())
    return place


@pytest.fixture
def root(tmp_path):
    return machine(tmp_path / "machine")


@pytest.fixture
def run(tmp_path, root, capsys):
    """Run a part of `pcipt policy` on the machine; give back exit code, stdout, stderr."""

    def run(part, *arguments):
        where = [] if part == "compile" else ["--root", str(root)]
        code = main(["policy", part, *map(str, arguments), "--policy", str(tmp_path / "etc"), *where])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def kept(run, tmp_path):
    code, _, err = run("add", "03:00.0", "--guest", "web", "--note", "the second NIC")
    assert code == 0, err
    return tmp_path / "etc"


def test_what_is_added_is_written_for_root_only_with_its_list(kept, run):
    file = kept / "passthrough.d" / f"{PATH}.toml"
    assert file.read_text().splitlines() == [
        "[[passthrough]]",
        f'path = "{PATH}"',
        'root = "\\\\_SB_.PCI0"',
        "vendor = 0x8086",
        "device = 0x1533",
        "subsystem_vendor = 0x15d9",
        "subsystem_device = 0x0000",
        "revision = 0x03",
        f'serial = "{SERIAL}"',
        'guest = "web"',
        'note = "the second NIC"',
    ]
    lines = (kept / "passthrough.list").read_text().splitlines()
    assert lines[1:] == [
        "\\_SB_.PCI0 0000:00 0:1c.0/0:00.0 0x8086 0x1533 0x15d9 0x0000 0x03 - 001b21ffff304cd8"
    ]
    assert {path.stat().st_mode & 0o777 for path in (file, kept / "passthrough.list")} == {0o600}
    assert sorted(os.listdir(kept)) == ["passthrough.d", "passthrough.list"]  # nothing is left aside


def test_the_same_is_not_added_twice(kept, run):
    code, _, err = run("add", "03:00.0")
    assert code == 1
    assert f"an entry for {PATH} is already in" in err


def test_the_line_for_the_guest_has_all_that_is_kept_for_it(kept, run, root):
    add(root, "pci0000:00/0000:00:1a.0", card(7))
    add(root, "pci0000:00/0000:00:1b.0", card(8))
    head = "For the guest's configuration (xl.cfg):\n"
    assert run("add", "00:1a.0", "--guest", "web")[1].endswith(f'{head}    pci = [ "00:1a.0", "03:00.0" ]\n')
    assert run("add", "00:1b.0", "--guest", "mail")[1].endswith(f'{head}    pci = [ "00:1b.0" ]\n')


def test_it_is_found_wherever_its_bus_is(kept, run, root):
    for bus in (3, 4, 0x20):
        machine(root, bus=bus)
        code, out, _ = run("check")
        assert (code, out) == (0, "1 function kept for guests, 1 as expected.\n")
        answer = json.loads(run("list", "--json")[1])
        (entry,) = answer["entries"]
        assert (entry["state"], entry["sbdf"]) == ("present", f"0000:{bus:02x}:00.0")
        assert run("snippet", "--xl")[1] == f'# web.cfg\npci = [ "0000:{bus:02x}:00.0" ]\n'


@pytest.mark.parametrize(
    ("nic", "told"),
    [
        (card(0x001B21FE), "serial 00-1b-21-fe-ff-30-4c-d8 instead of 00-1b-21-ff-ff-30-4c-d8"),
        (card(0), "serial 00-00-00-00-ff-30-4c-d8 instead of"),
        (card(device=0x10D3), "device 0x10d3 instead of 0x1533"),
    ],
)
def test_another_device_in_its_place_is_told_and_left_alone(kept, run, root, nic, told, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("COLUMNS", "1000")
    machine(root, nic=nic)
    code, out, _ = run("check")
    assert code == 4
    assert told in out
    assert "does not keep or release this device" in out
    assert run("list")[0] == 4
    code, out, err = run("snippet", "--kernel")
    assert (code, out) == (4, "")
    assert "policy" in err


def test_others_see_no_serial_number(kept, run, root, monkeypatch):
    machine(root, nic=card(0x001B21FE))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for part in ("check", "list"):
        assert "00-1b" not in run(part)[1] + run(part, "--json")[1]
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert SERIAL in run("list", "--json")[1]


def test_a_device_that_is_gone_or_moved(kept, run, root, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    machine(root, port="0000:00:1d.0")
    code, out, _ = run("check")
    assert code == 4
    assert f"no device is at {PATH}" in out
    assert "is now at 0000:03:00.0" in out


def test_what_the_check_refuses_is_not_kept(run, root, tmp_path):
    for text, why in (("00:00.0", "not kept"), ("00:1c.0", "not kept")):
        code, _, err = run("add", text)
        assert code == 1
        assert why in err
    assert not (tmp_path / "etc").exists()


def test_what_another_guest_gets_does_not_go_along(kept, run, root):
    """Two functions of one device, each for another guest: the check warns, as it does of one function."""
    add(root, f"{PORT}/0000:03:00.1", card())
    for guest, warned in (("mail", True), ("web", False)):
        code, _, err = run("add", "03:00.1", "--guest", guest)
        assert (code, "device-split" in err) == (0, warned)
        assert run("remove", "03:00.1")[0] == 0


def test_a_place_is_not_kept_under_two_paths(kept, run, root):
    """The firmware numbered the root bus anew: the entry still has the old path, and means the function."""
    shutil.rmtree(root)
    home = "pci0000:80"
    add(
        root, f"{home}/0000:80:1c.0", config=space({0x18: (4, 0x818180)}, header=1), **{"class": "0x060400\n"}
    )
    add(root, f"{home}/0000:80:1c.0/0000:81:00.0", card())
    (root / f"sys/devices/{home}/firmware_node").mkdir()
    (root / f"sys/devices/{home}/firmware_node/path").write_text("\\_SB_.PCI0\n")
    assert run("list")[1].startswith("present  0000:81:00.0")
    code, _, err = run("add", "81:00.0", "--guest", "mail")
    assert code == 1
    assert f"an entry for 80_1c.0-00_00.0 is already in {kept}" in err
    assert f", as {PATH}" in err
    (kept / "passthrough.d/mine.toml").write_text(
        '[[passthrough]]\npath = "80_1c.0-00_00.0"\nroot = "\\\\_SB_.PCI0"\n'
    )
    code, _, err = run("list")
    assert (code, "is in" in err) == (1, True)


def test_a_file_that_takes_no_table_stays_as_it_is(kept, run):
    file = kept / "passthrough.d" / f"{PATH}.toml"
    file.write_text("passthrough = []\n")
    code, _, err = run("add", "03:00.0")
    assert (code, err.count("\n")) == (1, 1)
    assert file.read_text() == "passthrough = []\n"


@pytest.mark.parametrize(
    ("data", "told", "serial"),
    [
        (card(serial=0)["config"][:0x100] + bytes(0xF00), "has no serial number: ", True),
        (card()["config"][:256], "has no serial number that can be read here: ", False),
    ],
)
def test_a_card_without_a_number_and_one_whose_number_is_not_known(run, root, tmp_path, data, told, serial):
    add(root, f"{PORT}/0000:03:00.0", {**card(), "config": data}, link=False)
    code, _, err = run("add", "03:00.0")
    assert (code, told in err) == (0, True), err
    text = (tmp_path / f"etc/passthrough.d/{PATH}.toml").read_text()
    assert ('serial = "none"' in text) is ("serial" in text) is serial


@pytest.mark.parametrize(("text", "code"), [("03:00.1", 6), ("zz", 2), ("03:", 2), ("*", 2)])
def test_addresses_are_refused_as_everywhere(run, text, code, tmp_path):
    assert run("add", text)[0] == code
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("text", [PATH, "03:00.0", "0000:03:00.0"])
def test_remove(kept, run, text):
    code, out, err = run("remove", text)
    assert (code, out) == (0, f"{PATH} is not kept any more\n")
    assert "initramfs" in err
    assert os.listdir(kept / "passthrough.d") == []
    assert (kept / "passthrough.list").read_text().count("\n") == 1
    code, _, err = run("remove", text)
    assert (code, err.count("\n")) == (6, 1)
    assert err.startswith(f"pcipt: the policy has no entry {text}; `pcipt policy list`")


def test_what_is_not_kept_cannot_be_given_up(kept, run):
    code, _, err = run("remove", "00:1c.0")
    assert code == 6
    assert err.startswith(f"pcipt: the policy has no entry 00:1c.0 (entries: {PATH}); `pcipt policy list`")


MINE = (
    '# rack 4\n[[passthrough]]\npath = "00_1d.0" # left\n\n'
    '# right\n[[passthrough]]\npath = "00_1e.0"\n# end\n'
)


def test_files_of_users_keep_their_comments(kept, run):
    file = kept / "passthrough.d" / "mine.toml"
    file.write_text(MINE)
    code, out, _ = run("check")
    assert code == 4
    assert "pcipt policy compile" in " ".join(out.split())
    assert run("compile")[:2] == (0, "3 functions in the list\n")
    assert run("check", "--json")[1].count("compile") == 0
    assert run("remove", "00_1d.0")[:2] == (0, "00_1d.0 is not kept any more\n")
    assert file.read_text() == '# rack 4\n\n# right\n[[passthrough]]\npath = "00_1e.0"\n# end\n'
    assert run("remove", "00_1e.0")[0] == 0
    assert file.read_text() == "# rack 4\n\n# right\n# end\n"


def test_a_comment_in_the_file_of_an_entry_stays_when_it_is_given_up_and_kept_again(kept, run):
    file = kept / "passthrough.d" / f"{PATH}.toml"
    before = file.read_text()
    file.write_text(f"# bought in May\n{before}")
    assert run("remove", PATH)[0] == 0
    assert file.read_text() == "# bought in May\n"
    assert run("add", "03:00.0", "--guest", "web", "--note", "the second NIC")[0] == 0
    assert file.read_text() == f"# bought in May\n{before}"


SETTINGS = (
    'mode = "enforce"  # as it was\r\n\r\n# the NIC\r\n[[passthrough]]\r\n'
    f'path = "{PATH}"\r\nguest = "web"\r\n\r\n# ports\r\n[hotplug]\r\nbelow = ["00_1d.0"]\r\n'
)


@pytest.fixture
def settings(tmp_path, root):
    """The policy stands in the settings file, which everybody may read."""
    file = tmp_path / "etc/pcipt.toml"
    file.parent.mkdir()
    file.write_bytes(SETTINGS.encode())
    file.chmod(0o644)
    return file


def test_entries_in_the_settings_file_count_as_those_in_passthrough_d(settings, run):
    assert run("list")[:2] == (0, f"present  0000:03:00.0  {PATH}  ????:????  guest web\n")
    assert run("check")[0] == 4  # no list yet
    assert run("compile")[0] == 0
    lines = (settings.parent / "passthrough.list").read_text().splitlines()
    assert lines[1:] == ["- 0000:00 0:1c.0/0:00.0 - - - - - - -", "- 0000:00 0:1d.0 port"]
    assert run("check") == (0, "1 function kept for guests, 1 as expected.\n", "")
    assert run("snippet", "--xl")[1] == '# web.cfg\npci = [ "0000:03:00.0" ]\n'
    code, _, err = run("add", "03:00.0")
    assert (code, f"is already in {settings}" in err) == (1, True)


def test_an_entry_is_taken_out_of_the_settings_file_and_nothing_else(settings, run):
    assert run("remove", "03:00.0")[0] == 0
    left = SETTINGS.replace(f'[[passthrough]]\r\npath = "{PATH}"\r\nguest = "web"\r\n', "")
    assert settings.read_bytes().decode() == left
    assert settings.stat().st_mode & 0o777 == 0o644
    assert run("list")[:2] == (0, "")


@pytest.mark.parametrize(("serial", "mode", "told"), [
    (SERIAL, 0o644, True), (SERIAL, 0o640, True), (SERIAL, 0o600, False), ("none", 0o644, False),
])  # fmt: skip
def test_a_serial_number_that_others_may_read_is_told(settings, run, serial, mode, told):
    settings.write_text(f'[[passthrough]]\npath = "{PATH}"\nserial = "{serial}"\n')
    settings.chmod(mode)
    run("compile")
    complaints = json.loads(run("check", "--json")[1])["complaints"]
    assert any("not only root may read" in text for text in complaints) is told


def test_a_settings_file_that_is_linked_to_stays_a_link(settings, run, tmp_path):
    settings.rename(tmp_path / "elsewhere.toml")
    settings.symlink_to("../elsewhere.toml")
    assert run("remove", PATH)[0] == 0
    assert settings.is_symlink()
    assert "passthrough" not in settings.read_text()


@pytest.mark.parametrize(
    "text",
    [
        f'passthrough = [{{ path = "{PATH}" }}]\n',
        f'[["passthrough"]]\npath = "{PATH}"\n',
        f'[log]\nlevel = """\n[[passthrough]]\n"""\n[["passthrough"]]\npath = "{PATH}"\n',
    ],
)
def test_what_cannot_be_taken_out_is_left_to_the_user(settings, run, text):
    settings.write_text(text)
    code, _, err = run("remove", PATH)
    assert (code, "by hand" in err) == (1, True)
    assert settings.read_text() == text


def test_a_port_in_two_spellings_is_once_in_the_list(settings, run):
    settings.write_text('[hotplug]\nbelow = ["00_1d.0", "dom0:00_1D.0", "0000_00_1d.0"]\n')
    assert run("compile")[0] == 0
    assert (settings.parent / "passthrough.list").read_text().splitlines()[1:] == ["- 0000:00 0:1d.0 port"]


@pytest.mark.parametrize("text", ["", '[[passthrough]]\npath = "0_1d.0-0_0.0"\n'])
def test_the_settings_are_checked_for_two_entries_of_one_place(tmp_path, text, capsys):
    file = tmp_path / "pcipt.toml"
    file.write_text(f'[[passthrough]]\npath = "00_1d.0-00_00.0"\n{text}')
    assert main(["daemon", "--check-settings", "--settings", str(file)]) == (1 if text else 0)
    assert ("is in" in capsys.readouterr().err) is bool(text)


@pytest.mark.parametrize(
    "switch",
    [
        'mode = "observe"\n[hotplug]\n',
        "[actions]\nguard-port = false\n[hotplug]\n",
        '[hotplug]\naction = "tell"\n',
    ],
)
def test_ports_of_which_pcipt_only_tells_are_not_guarded_at_boot(settings, run, switch):
    settings.write_text(f'{switch}below = ["00_1d.0"]\n')
    assert run("compile")[0] == 0
    assert (settings.parent / "passthrough.list").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hotplug = 1", "hotplug"), ("[hotplug]\nbelow = 1", "no list of PCI paths"),
        ("actions = 1", "actions"), ('[hotplug]\nbelow = ["03:00.0"]', "hotplug.below:"),
        ('[hotplug]\nbelow = ["10000_00_1c.0"]', "above ffff"),
        ("[hotplug", "pcipt.toml"), ("[[passthrough]]", "no path"),
    ],
)  # fmt: skip
def test_a_wrong_settings_file_is_named(settings, run, text, why):
    settings.write_text(text)
    code, _, err = run("compile")
    assert (code, why in err, "pcipt.toml" in err) == (1, True, True)


def test_nothing_is_written_if_the_list_cannot_be(settings, run):
    """The ports in the settings are a part of the list."""
    settings.write_text("")
    assert run("add", "03:00.0")[0] == 0
    (file,) = (settings.parent / "passthrough.d").iterdir()
    settings.write_text('[hotplug]\nbelow = ["03:00.0"]\n')
    assert run("remove", PATH)[0] == 1
    assert file.exists()
    file.unlink()
    assert run("add", "03:00.0")[0] == 1
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[passthrough]]\n", "no path"),
        ("passthrough = 1\n", "no list of tables"),
        ("mode = 1\n", "unknown key mode"),
        ("[[passthrough\n", "mine.toml"),
        ("\xff", "mine.toml"),
        (f'[[passthrough]]\npath = "{PATH}"\n', "is in"),
    ],
)
def test_a_wrong_file_is_named(kept, run, text, why):
    (kept / "passthrough.d" / "mine.toml").write_bytes(text.encode("latin-1"))
    code, _, err = run("list")
    assert code == 1
    assert why in err
    assert "Traceback" not in err


def test_only_root_may_see_the_policy_of_this_machine(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for part in ("list", "check", "compile"):
        assert main(["policy", part, "--policy", str(tmp_path)]) == 5
        assert "only root" in capsys.readouterr().err


def test_lines_of_other_tools_that_went_stale(kept, run, root, monkeypatch):
    """The bus has shifted: hide= names nothing, and the guest's file the device of before."""
    monkeypatch.setenv("COLUMNS", "1000")
    machine(root, bus=4)
    (root / "proc").mkdir()
    (root / "etc/xen").mkdir(parents=True)
    (root / "proc/cmdline").write_text("ro xen-pciback.hide=(0000:03:00.0)\n")
    (root / "etc/xen/web.cfg").write_text('name = "web"\npci = [ "03:00.0,permissive=1" ]\n')
    code, out, _ = run("check")
    assert code == 4
    assert "names (0000:03:00.0): no function is at this address, and the address hides nothing" in out
    assert "the right line is xen-pciback.hide=(0000:04:00.0)" in out
    assert out.endswith("1 function kept for guests, 1 as expected.\n")
    answer = json.loads(run("check", "--json")[1])
    assert [(each["code"], each["line"]) for each in answer["lines"]] == [
        ("line-absent", "xen-pciback.hide=(0000:04:00.0)"),
        ("line-absent", 'pci = [ "0000:04:00.0,permissive=1" ]'),
    ]
    assert [each["text"] for each in answer["lines"]] == answer["complaints"]
    for file, of, to in (("proc/cmdline", "03:", "04:"), ("etc/xen/web.cfg", "03:", "04:")):
        (root / file).write_text((root / file).read_text().replace(of, to))
    assert run("check") == (0, "1 function kept for guests, 1 as expected.\n", "")


RENUMBERED = (
    f"{PATH}, which is kept for guest web, has changed since the boot before this one (renumbered): "
    "at 0000:07:00.0, was at 0000:03:00.0; `pcipt policy snippet` "
)


@pytest.mark.parametrize(("changed", "words"), [({"bus": 7}, RENUMBERED), ({}, None)])
def test_what_has_changed_of_a_kept_function_is_told_with_exit_code_4(
    kept, run, root, tmp_path, changed, words
):
    before = tmp_path / "before"
    shutil.copytree(root, before, symlinks=True)
    machine(root, **changed)
    code, out, _ = run("check", "--before", before)
    told = " ".join(out.split())
    assert (code, "1 function kept for guests, 1 as expected." in told) == (4 if words else 0, True)
    assert ("has changed" in told) is bool(words)
    assert (words or "") in told


def test_what_is_not_as_expected_is_told_once(kept, run, root, tmp_path):
    before = tmp_path / "before"
    shutil.copytree(root, before, symlinks=True)
    machine(root, nic=card(1))
    code, out, _ = run("check", "--before", before)
    assert code == 4
    assert "has changed since" not in " ".join(out.split())


def test_what_an_old_initramfs_keeps_is_told_until_dom0_has_it(kept, run, root):
    (root / "run").mkdir()
    (root / "run/pcipt.caught").write_text("0000:03:00.0\n0000:07:00.0\n")  # the second is gone
    assert run("check")[0] == 0
    assert run("remove", PATH)[0] == 0
    code, out, _ = run("check")
    assert code == 4
    assert "`pcipt reclaim 0000:03:00.0` gives it to dom0" in " ".join(out.split())
    assert "0000:07:00.0" not in out
    (root / "sys/bus/pci/drivers/igb").mkdir(parents=True)
    (root / f"sys/devices/{PORT}/0000:03:00.0/driver").symlink_to(root / "sys/bus/pci/drivers/igb")
    assert run("check")[0] == 0


def test_a_recording_that_cannot_be_read_is_an_error(kept, run, tmp_path):
    assert run("check", "--before", tmp_path / "nowhere")[0] == 1
