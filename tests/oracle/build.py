"""Build Xen's own vPCI of one release as a shared library; nothing of Xen's source is kept in the project.

The files are taken out of a git directory into a scratch folder, without their #include lines, as Xen's own
tools/tests/vpci does. `stubs.h` stands in for what they include, `oracle.c` for the machine around them.
"""

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
FUNCTION = (
    r"^(?:static |unsigned |inline |bool |int |__init |__hwdom_init )[^;{{}}]*?"
    r"\b{name}\s*\([^;{{}}]*?\)\s*\n?\{{.*?^\}}"
)
HEADERS = ("list.h", "pci_regs.h", "rangeset.h", "vpci.h")
OF_VPCI = ("vpci", "header", "msix", "rebar", "cap")
OF_P2M = (
    "set_typed_p2m_entry", "set_mmio_p2m_entry", "clear_mmio_p2m_entry", "p2m_remove_identity_entry",
    "mmio_order", "map_mmio_regions", "unmap_mmio_regions",
)  # fmt: skip


class NoSourceError(Exception):
    """The git directory does not have what is to be built."""


class Source:
    """The files of one release in a git directory of Xen."""

    def __init__(self, git, release):
        self._git, self._tag = git, f"RELEASE-{release}"

    def find(self, path):
        """Give the text of a file; None if this release does not have it."""
        command = ["git", f"--git-dir={self._git}", "show", f"{self._tag}:{path}"]
        done = subprocess.run(command, capture_output=True, check=False)
        return done.stdout.decode() if done.returncode == 0 else None

    def get(self, path):
        text = self.find(path)
        if text is None:
            raise NoSourceError(f"{self._git}: {self._tag} has no {path}")
        return text


def bare(text):
    return re.sub(r"^\s*#\s*include.*$", "", text, flags=re.MULTILINE)


def function(text, name):
    found = re.search(FUNCTION.format(name=name), text, re.MULTILINE | re.DOTALL)
    if not found:
        raise NoSourceError(f"no function {name}")
    return found.group(0)


def git_directory(path):
    """Give the git directory of a clone, or the directory itself if it is one."""
    inside = Path(path) / ".git"
    return str(inside if inside.exists() else path)


def sources_of(source):
    """Give (name, text) of each C file, and the texts of the headers by name."""
    headers = {name: bare(source.get(f"xen/include/xen/{name}")) for name in HEADERS}
    private = source.find("xen/drivers/vpci/private.h")
    if private is not None:
        headers["private.h"] = bare(private)
    texts = [(name, source.find(f"xen/drivers/vpci/{name}.c")) for name in OF_VPCI]
    files = [
        (name, re.sub(r"^#define NUM_VPCI_INIT.*$", "", bare(text), flags=re.MULTILINE))
        for name, text in texts
        if text is not None
    ]
    files.append(("rangeset", bare(source.get("xen/common/rangeset.c"))))
    finders = bare(source.get("xen/drivers/pci/pci.c"))
    finders = finders[: re.search(r"^const char \*__init parse_pci\(", finders, re.MULTILINE).start()]
    heads = re.findall(r"^((?:unsigned int|int|void) pci_\w+\([^{;]*\))\s*\{", finders, re.MULTILINE)
    headers["protos.h"] = ";\n".join(heads) + ";\n"
    files.append(("finders", finders))
    files.append(("sizing", function(source.get("xen/drivers/passthrough/pci.c"), "pci_size_mem_bar")))
    files.append(("hole", function(source.get("xen/arch/x86/mm.c"), "is_memory_hole")))
    files.append(("check", _check_of(source)))
    p2m = source.get("xen/arch/x86/mm/p2m.c")
    files.append(("p2m", '#include "p2m_stubs.h"\n' + "\n\n".join(function(p2m, name) for name in OF_P2M)))
    return files, headers


def _check_of(source):
    """Give pci_check_bar, which stood in a header at first, and what goes with it later."""
    text, header = source.get("xen/arch/x86/pci.c"), source.get("xen/arch/x86/include/asm/pci.h")
    if "pci_sanitize_bar_memory" in text:
        return f"{function(text, 'pci_check_bar')}\n{function(text, 'pci_sanitize_bar_memory')}"
    inline = function(header if "is_memory_hole" in header else text, "pci_check_bar")
    return inline.replace("static inline ", "")


def build(git, release, scratch):
    """Build the library of one release below a scratch folder; give its path.

    Raises: NoSourceError if the git directory does not have the release; CalledProcessError if gcc fails.
    """
    into = Path(scratch) / release
    (into / "gen").mkdir(parents=True, exist_ok=True)
    source = Source(git_directory(git), release)
    files, headers = sources_of(source)
    version = re.search(
        r"export XEN_VERSION\s*=\s*(\d+)\nexport XEN_SUBVERSION\s*=\s*(\d+)", source.get("xen/Makefile")
    )
    for name, text in headers.items():
        (into / "gen" / name).write_text(text, encoding="utf-8")
    for name, text in files:
        (into / "gen" / f"{name}.c").write_text(f'#include "stubs.h"\n{text}\n', encoding="utf-8")
    by_name = dict(files)
    new = "vpci_assign_device" in by_name["vpci"]
    flags = [
        f"-DORACLE_VERSION={int(version[1]) * 100 + int(version[2])}",
        f"-DORACLE_ASSIGN={'vpci_assign_device' if new else 'vpci_add_handlers'}",
        f"-DORACLE_DEASSIGN={'vpci_deassign_device' if new else 'vpci_remove_device'}",
        *(["-DORACLE_MSIX_POS"] if "msix_pos" in by_name["msix"] else []),
        *(["-DORACLE_HAS_PRIVATE"] if "private.h" in headers else []),
    ]
    library = into / "liboracle.so"
    command = [
        "gcc", "-g", "-O1", "-w", "-std=gnu11", "-shared", "-fPIC", "-fvisibility=default",
        f"-I{into}", f"-I{HERE}", *flags, "-o", str(library), str(HERE / "oracle.c"),
        *(str(into / "gen" / f"{name}.c") for name, _ in files), "-Wl,-z,defs",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return library
