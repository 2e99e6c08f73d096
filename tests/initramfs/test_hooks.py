"""The hooks of initramfs-tools and dracut: what they put into the image, and when it runs there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
HOOKS = REPO / "initramfs"
LIST = "etc/pcipt/passthrough.list"
ENTRY = "- 0000:00 0:1c.0 - - - - - - -\n"


@pytest.fixture
def host(tmp_path):
    """A host where everything is installed; give back its root."""
    subprocess.run(["sh", REPO / "scripts/install-initramfs.sh", tmp_path], check=True)
    (tmp_path / "etc/pcipt").mkdir(parents=True)
    (tmp_path / LIST).write_text(ENTRY)
    (tmp_path / LIST).chmod(0o600)
    return tmp_path


def moved(path, host):
    """Give the text of a script with its absolute paths moved below `host`."""
    text = path.read_text()
    for place in ("/usr/share/initramfs-tools", "/etc/pcipt", "/usr/lib/pcipt"):
        text = text.replace(f" {place}", f" {host}{place}")
    return text


def run(shell, text, host, **environment):
    where = {"PATH": f"{host / 'bin'}:/usr/bin:/bin", **environment}
    return subprocess.run([shell, "-c", text, "hook"], capture_output=True, text=True, check=False, env=where)


FUNCTIONS = """
copy_exec() { echo "copy_exec $*"; }
manual_add_modules() { echo "manual_add_modules $*"; }
"""
SCRIPTS = ("keep.sh", "boot.sh")


def of_initramfs_tools(host, image):
    (host / "usr/share/initramfs-tools/hook-functions").write_text(FUNCTIONS)
    return run("sh", moved(host / "usr/share/initramfs-tools/hooks/pcipt", host), host, DESTDIR=str(image))


def test_initramfs_tools_gets_list_shell_od_and_the_driver(host, tmp_path):
    image = tmp_path / "image"
    done = of_initramfs_tools(host, image)
    told = "copy_exec /usr/bin/od\nmanual_add_modules xen-pciback\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")
    root = f"{image}{host}" if (Path(f"{image}{host}")).exists() else image
    assert (Path(root) / LIST).read_text() == ENTRY
    assert (Path(root) / LIST).stat().st_mode & 0o777 == 0o600
    for name in SCRIPTS:
        assert (Path(root) / "usr/lib/pcipt" / name).read_text() == (HOOKS / name).read_text()


def test_nothing_kept_puts_nothing_into_it(host, tmp_path):
    (host / LIST).unlink()
    done = of_initramfs_tools(host, tmp_path / "image")
    assert (done.returncode, done.stdout) == (0, "")
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("works", [True, False])
def test_the_list_is_made_anew_first(host, tmp_path, works):
    (host / "bin").mkdir()
    made = f"echo '# new' > {host / LIST}" if works else "exit 1"
    (host / "bin/pcipt").write_text(f'#!/bin/sh\n[ "$*" = "policy compile" ] || exit 9\n{made}\n')
    (host / "bin/pcipt").chmod(0o755)
    done = of_initramfs_tools(host, tmp_path / "image")
    assert done.returncode == 0
    assert ("the old one" in done.stderr) is not works
    assert (host / LIST).read_text() == ("# new\n" if works else ENTRY)


def test_it_runs_before_udev(host):
    """As mkinitramfs orders scripts without prerequisites: pairs through tsort."""
    names = ["all_generic_ide", "blacklist", "keymap", "pcipt", "udev"]
    script = host / "usr/share/initramfs-tools/scripts/init-top/pcipt"
    assert subprocess.run([script, "prereqs"], capture_output=True, check=True).stdout == b""
    pairs = "".join(f"{name} {name}\n" for name in reversed(names))
    order = subprocess.run(["tsort"], input=pairs, capture_output=True, text=True, check=True).stdout.split()
    assert order.index("pcipt") < order.index("udev")


def test_the_image_is_for_root_alone(host):
    text = (host / "usr/share/initramfs-tools/conf-hooks.d/pcipt").read_text()
    assert "UMASK=0077" in text.splitlines()


STUBS = """
for each in inst_multiple inst_simple inst_hook dwarning instmods; do
eval "$each() { echo $each \\$*; }"; done
moddir=MODDIR
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("kept", [True, False])
def test_dracut_gets_the_same(host, kept):
    if not kept:
        (host / LIST).write_text("")
    setup = moved(host / "usr/lib/dracut/modules.d/90pcipt/module-setup.sh", host)
    done = run("bash", f"{STUBS}{setup}\ncheck && depends && installkernel && install", host)
    assert (done.returncode == 0) is kept
    assert done.stdout.replace(str(host), "").splitlines() == kept * [
        "instmods xen-pciback",
        "inst_multiple od",
        "inst_simple /etc/pcipt/passthrough.list",
        "inst_simple /usr/lib/pcipt/keep.sh",
        "inst_simple /usr/lib/pcipt/boot.sh",
        "inst_hook pre-udev 10 MODDIR/keep-hook.sh",
    ]


def test_what_dracut_sources_cannot_end_it(host):
    """dracut sources its hooks: an exit in the shell that keeps functions must not end it."""
    hook = moved(host / "usr/lib/dracut/modules.d/90pcipt/keep-hook.sh", host)
    (host / "usr/lib/pcipt/boot.sh").write_text("exit 3\n")
    done = run("sh", f"{hook}\necho goes on", host)
    assert done.stdout == "goes on\n"


def test_everything_that_is_installed_runs(host):
    scripts = [path for path in host.rglob("*") if path.is_file() and path.read_text().startswith("#!")]
    assert len(scripts) == 6
    assert all(os.access(path, os.X_OK) for path in scripts)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("script", "word"), [("postinst", "configure"), ("postrm", "remove")])
def test_the_initramfs_is_made_anew_when_the_package_comes_or_goes_if_it_keeps_something(
    host, script, word, listed
):
    """A package that is gone must keep nothing; where nothing is kept, nobody waits for an initramfs."""
    (host / LIST).write_text(ENTRY * listed)
    (host / "bin").mkdir()
    trigger = host / "bin/dpkg-trigger"
    trigger.write_text('#!/bin/sh\necho "$*"\n')
    trigger.chmod(0o755)
    done = run("sh", f"set -- {word}\n{moved(REPO / f'debian/pcipt.{script}', host)}", host)
    assert (done.returncode, done.stdout) == (0, "--no-await update-initramfs\n" * listed)
