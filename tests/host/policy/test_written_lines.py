"""Lines of other tools on a machine of files."""

import os

import pytest

from pcipt.host.policy.written_lines import read_lines
from pcipt.pci.policy.snippets import For
from pcipt.pci.policy.written import wrong_lines


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "etc/xen/auto").mkdir(parents=True)
    return tmp_path


def test_the_kernel_and_the_files_in_their_order(root):
    (root / "proc/cmdline").write_text("ro xen-pciback.hide=(03:00.0) rd.qubes.hide_pci=04:00.0\n")
    (root / "etc/xen/web.cfg").write_text('name = "web"\npci = [ "03:00.0@5" ]\n')
    (root / "etc/xen/xl.conf").write_text('pci = [ "09:00.0" ]\n')  # not a guest's
    (root / "etc/xen/none.cfg").write_text('name = "none"\n')
    (root / "etc/xen/auto/mail").write_text('name = "mail"\npci = [ "04:00.0" ]\n')
    found = read_lines(str(root))
    assert [(each.tool, [item.text for item in each.items], each.guest) for each in found] == [
        (For.KERNEL, ["(03:00.0)"], ""),
        (For.QUBES, ["04:00.0"], ""),
        (For.XL, ["03:00.0@5"], "web"),
        (For.XL, ["04:00.0"], "mail"),
    ]
    assert found[0].where == "xen-pciback.hide on the kernel's command line"
    assert found[2].where == f"{root}/etc/xen/web.cfg, line 2,"
    assert found[2].items[0].options == "@5"


MODPROBE = "options xen-pciback hide=({})\n"


def test_the_option_in_the_files_of_modprobe_that_counts(root):
    """Files are read by name; of two with one name, /etc has the one that counts."""
    for place in ("etc", "usr/lib", "run"):
        (root / place / "modprobe.d").mkdir(parents=True)
    (root / "etc/modprobe.d/b.conf").write_text("# ours\n" + MODPROBE.format("03:00.0"))
    (root / "usr/lib/modprobe.d/b.conf").write_text(MODPROBE.format("04:00.0"))
    (root / "run/modprobe.d/a.conf").write_text(MODPROBE.format("05:00.0"))
    (root / "etc/modprobe.d/c.conf.old").write_text(MODPROBE.format("06:00.0"))
    (root / "etc/modprobe.d/z.conf").write_text("options xen-pciback passthrough=1\n")
    (told,) = read_lines(str(root))
    assert (told.tool, told.where) == (For.MODPROBE, f"{root}/etc/modprobe.d/b.conf, line 2,")
    (wrong,) = wrong_lines([told], (), {})
    assert (wrong.code, wrong.line) == ("line-absent", "")
    assert "(03:00.0): no function is at this address, and the address hides nothing" in wrong.text
    (root / "proc/cmdline").write_text("ro xen-pciback.hide=(07:00.0)\n")  # it comes after modprobe's files
    assert [each.tool for each in read_lines(str(root))] == [For.KERNEL]


def test_a_link_in_auto_is_the_file_that_it_names(root):
    (root / "etc/xen/web.cfg").write_text('pci = [ "03:00.0" ]\n')
    (root / "etc/xen/auto/web.cfg").symlink_to("../web.cfg")
    (root / "etc/xen/auto/gone").symlink_to("../gone.cfg")
    os.mkfifo(root / "etc/xen/auto/fifo")
    assert [each.where for each in read_lines(str(root))] == [f"{root}/etc/xen/web.cfg, line 1,"]


def test_a_file_that_xl_refuses_is_told_only_if_it_names_devices(root):
    (root / "etc/xen/a.cfg").write_text("import os\n")
    (root / "etc/xen/b.cfg").write_text("\npci = [ 'zz' ]\n")
    (root / "etc/xen/c.cfg").write_bytes(b"#" * 300_000)
    why = "'zz' of pci: it is no address; expected [segment:]bus:device.function in hexadecimal"
    faults = [each.fault for each in read_lines(str(root))]
    assert faults == [
        f"{root}/etc/xen/b.cfg: line 2: {why}",
        f"{root}/etc/xen/c.cfg: is longer than 262144 bytes",
    ]


def test_a_device_that_is_in_no_list_is_told(root):
    """xl warns and starts the guest without it; an empty text is how some files say that there is none."""
    (root / "etc/xen/a.cfg").write_text("memory = 512\npci = '03:00.0'\n")
    (root / "etc/xen/b.cfg").write_text("pci = ''\n")
    (told,) = wrong_lines(read_lines(str(root)), (), {})
    assert told.code == "line-malformed"
    assert told.text.startswith(f"{root}/etc/xen/a.cfg: line 2: pci is no list: xl ignores it")


def test_a_machine_without_such_files_has_no_line(tmp_path):
    assert read_lines(str(tmp_path)) == ()
