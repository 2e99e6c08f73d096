import pytest

from pcipt.errors import MalformedError, UnsupportedError
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.loading import XENCALL, read_identity, require_privcmd, xencall_names, xenctrl_names

DOM0 = {
    "sys/hypervisor/type": "xen\n",
    "sys/hypervisor/guest_type": "PVH\n",
    "sys/hypervisor/version/major": "4\n",
    "sys/hypervisor/version/minor": "20\n",
    "sys/hypervisor/version/extra": ".1-pre\n",
    "proc/xen/capabilities": "control_d\n",
    "dev/xen/privcmd": "",
}


@pytest.fixture
def tree(tmp_path):
    def make(**changes):
        for path, text in {**DOM0, **changes}.items():
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            if text is not None:
                target.write_text(text)
        return str(tmp_path)

    return make


def test_identity(tree):
    assert read_identity(tree()) == XenIdentity("4.20.1-pre", Dom0Kind.PVH)


# what is found, what it is taken for
KINDS = [
    ("PV\n", Dom0Kind.PV),
    ("PVH\n", Dom0Kind.PVH),
    ("HVM\n", Dom0Kind.PVH),  # a dom0 has no emulated devices: the kernel was entered another way
]


@pytest.mark.parametrize(("text", "kind"), KINDS)
def test_kinds_of_dom0(tree, text, kind):
    assert read_identity(tree(**{"sys/hypervisor/guest_type": text})).dom0 is kind


def test_xenfs_need_not_be_mounted(tree):
    assert read_identity(tree(**{"proc/xen/capabilities": None})).version.major == 4
    assert read_identity(tree(**{"proc/xen/capabilities": ""})).version.major == 4


# why there is no Xen to speak to, the file, its text, a word of the reason
NO_XEN = [
    ("no hypervisor", "sys/hypervisor/type", None, "does not run under Xen"),
    ("another hypervisor", "sys/hypervisor/type", "hyperv\n", "does not run under Xen"),
    ("a guest", "proc/xen/capabilities", "\x00other\n", "control domain"),
    ("no kind", "sys/hypervisor/guest_type", None, "guest_type"),
    ("a kind nobody knows", "sys/hypervisor/guest_type", "PVHVM\n", "'PVHVM'"),
]


@pytest.mark.parametrize(
    ("path", "text", "word"), [row[1:] for row in NO_XEN], ids=[row[0] for row in NO_XEN]
)
def test_no_xen(tree, path, text, word):
    with pytest.raises(UnsupportedError) as caught:
        read_identity(tree(**{path: text}))
    assert word in caught.value.why
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "four", "-4", "4.17", "9" * 40])
def test_a_version_that_is_no_number(tree, text):
    with pytest.raises(MalformedError) as caught:
        read_identity(tree(**{"sys/hypervisor/version/minor": text}))
    assert caught.value.source == "/sys/hypervisor/version/minor"


def test_privcmd_is_one_of_two_files(tree):
    require_privcmd(tree())
    root = tree(**{"dev/xen/privcmd": None, "proc/xen/privcmd": ""})
    require_privcmd(root)
    with pytest.raises(UnsupportedError) as caught:
        require_privcmd(tree(**{"dev/xen/privcmd": None}) + "/nowhere")
    assert "/dev/xen/privcmd" in caught.value.why


INSTALLED = (
    "usr/lib/x86_64-linux-gnu/libxenctrl.so.4.17",
    "usr/lib/x86_64-linux-gnu/libxenctrl.so.4.17.0",  # the file itself, not a soname
    "usr/lib/x86_64-linux-gnu/libxenctrl.so",  # of the developers' package
    "usr/lib/x86_64-linux-gnu/libxencall.so.1",
    "usr/lib64/libxenctrl.so.4.20",
    "usr/local/lib/libxenctrl.so.4.9",
    "usr/local/lib/libxenctrl.so.4.17",
    "usr/local/lib/libxenctrl.so.4.oops",
)


def test_the_running_xens_library_is_tried_first(tmp_path):
    for path in INSTALLED:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    root = str(tmp_path)
    names = xenctrl_names(XenIdentity("4.17.7", Dom0Kind.PV), root)
    assert [name.removeprefix(root + "/") for name in names] == [
        "usr/lib/x86_64-linux-gnu/libxenctrl.so.4.17",
        "usr/local/lib/libxenctrl.so.4.17",
        "usr/lib64/libxenctrl.so.4.20",  # newer before older, by number and not by letter
        "usr/local/lib/libxenctrl.so.4.9",
    ]
    assert xencall_names(root) == [f"{root}/usr/lib/x86_64-linux-gnu/libxencall.so.1"]


@pytest.mark.parametrize(
    ("version", "order"),
    [
        ("4.20.4", ["4.20", "4.19", "4.21", "4.18", "4.17", "4.99"]),  # both; one; not known
        ("4.17.7", ["4.17", "4.20", "4.19", "4.18", "4.99"]),  # 4.21 and 4.22 share nothing with it
        ("4.22.0", ["4.22", "4.21", "4.99"]),
        ("4.99.0", ["4.99", "4.22", "4.21", "4.20", "4.19", "4.18", "4.17"]),
    ],
)
def test_other_libraries_go_by_their_interfaces(version, order, tmp_path):
    home = tmp_path / "usr/lib"
    home.mkdir(parents=True)
    for minor in (*range(17, 23), 99):
        (home / f"libxenctrl.so.4.{minor}").touch()
    names = xenctrl_names(XenIdentity(version, Dom0Kind.PV), str(tmp_path))
    assert [name.rpartition(".so.")[2] for name in names] == order


def test_on_this_machine_the_dynamic_linker_is_asked_first():
    assert xenctrl_names(XenIdentity("4.17.7", Dom0Kind.PV))[0] == "libxenctrl.so.4.17"
    assert xencall_names()[0] == XENCALL
