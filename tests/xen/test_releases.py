"""What each release of Xen does, as one table; nobody else compares versions."""

import ast
import pathlib
import re
import runpy

import pytest

from pcipt.xen import releases
from pcipt.xen.releases import (
    FACTS,
    INTERFACES,
    LINUX_FACTS,
    NEWEST,
    PF_FIXUP,
    Version,
    parse_version,
    uncertain,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("4.17.7", (4, 17, 7, None)),
        ("4.22.0", (4, 22, 0, None)),
        ("4.17", (4, 17, None, None)),
        ("4.17.4-qubes", (4, 17, None, None)),
        ("4.18.3.9", (4, 18, None, None)),
        ("4.22-unstable", (4, 22, None, 0)),
        ("4.22-unstable-vendor", (4, 22, None, 0)),
        ("4.22.0-rc", (4, 22, None, 0)),
        ("4.22.1-rc", (4, 22, None, None)),
        ("4.22.0-pre", (4, 22, None, None)),
        ("4.20.5-pre", (4, 20, None, 5)),
        ("4.20.5-pre-qubes", (4, 20, None, None)),
    ],
)
def test_versions_are_read(text, version):
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "xen", "4", ".17"])
def test_what_is_no_version_is_said(text):
    with pytest.raises(ValueError, match=r"is not like 4\.17\.7"):
        parse_version(text)


def test_a_version_is_shown_with_what_is_known_of_it():
    assert [str(parse_version(text)) for text in ("4.17.7", "4.17.4-qubes")] == ["4.17.7", "4.17.x"]
    assert str(parse_version("4.20.5-pre")) == "4.20.5-pre"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("4.19.2-pre", None),
        ("4.19.1-pre", False),
        ("4.19.3-pre", True),
        ("4.20.5-pre", True),
        ("4.20.x", None),
    ],
)
def test_a_build_of_a_stable_branch_has_what_the_release_before_it_has(text, known):
    """PF_FIXUP begins with 4.19.2 and 4.20.1: only a build right before these may have it or not."""
    assert PF_FIXUP.known_of(parse_version(text)) is known


@pytest.mark.parametrize(
    ("name", "text", "known"),
    [
        ("ORPHAN_REMOVAL_PANICS", "4.19-unstable", None),  # mended while master called itself so
        ("ORPHAN_REMOVAL_PANICS", "4.19.0-rc", None),
        ("ORPHAN_REMOVAL_PANICS", "4.20-unstable", False),
        ("ORPHAN_REMOVAL_PANICS", "4.18-unstable", True),
        ("VPCI_SURVIVES_FAILURE", "4.19-unstable", None),
        ("FAULTY_CAPABILITY_HIDDEN", "4.21-unstable", None),
        ("FAULTY_CAPABILITY_HIDDEN", "4.22-unstable", True),
        ("PF_FIXUP_BY_DEFAULT", "4.22.0-rc", None),
        ("PF_FIXUP_BY_DEFAULT", "4.23-unstable", True),
        ("VF_NEEDS_PF_ADDED", "4.20-unstable", None),  # between two commits
        ("PVH_DOM0_GIVES_DEVICES", "4.20-unstable", None),
    ],
)
def test_what_is_called_unstable_may_have_no_more_than_the_branch_before(name, text, known):
    fact, version = named()[name], parse_version(text)
    assert fact.known_of(version) is known
    assert fact.of(version) is (fact.safer if known is None else known)


def test_versions_whose_source_was_read():
    read = {
        text: parse_version(text).is_read for text in ("4.17.7", "4.17.8", "4.17.7-1", "4.99.0", "4.16.0")
    }
    assert read == {"4.17.7": True, "4.17.8": False, "4.17.7-1": False, "4.99.0": False, "4.16.0": False}


#  fact: versions that do it, versions that do not
BOUNDARIES = {
    "RESERVED_MAPPED_ANYWHERE": ("4.19.0 4.20.4 4.22.0", "4.17.7 4.18.6"),
    "ORPHAN_REMOVAL_PANICS": ("4.16.0 4.17.7 4.18.6", "4.19.0 4.20.0 4.22.0 4.23.0 5.0.0"),
    "UNFINISHED_MAP_PANICS": ("4.17.7 4.18.6", "4.19.0 4.20.0"),
    "IO_VF_BAR_HANGS": ("4.18.6 4.19.3 4.20.1", "4.19.4 4.20.2 4.21.0 4.22.0"),
    "VF_NEEDS_PF_ADDED": ("4.19.1 4.19.6", "4.18.6 4.19.0 4.20.0"),
    "VF_WITHOUT_PF_REFUSED": ("4.20.0 4.22.0", "4.19.6"),
    "PF_WITH_VFS_STAYS": ("4.19.1 4.20.0 4.21.0", "4.17.7 4.19.0"),
    "DEVICE_RESET": ("4.20.0", "4.19.6"),
    "WITHOUT_VPCI_PANICS": ("4.17.0 4.17.1", "4.17.2 4.18.0"),
    "VPCI_CHECKS_PERMISSION": ("4.18.0", "4.17.7"),
    "VPCI_SURVIVES_FAILURE": ("4.19.0", "4.18.6"),
    "VPCI_GOES_BAR_BY_BAR": ("4.19.0", "4.18.6"),
    "RANGESET_GROWS": ("4.17.7 4.18.6 4.19.2 4.20.0", "4.19.3 4.20.1 4.21.0"),
    "E820_CUTS_BARS": ("4.19.3 4.20.1 4.21.0", "4.18.6 4.19.2 4.20.0"),
    "VPCI_BUILT_AT_ASSIGN": ("4.19.0", "4.18.6"),
    "MSIX_CHECKED": ("4.19.4 4.20.2 4.21.0", "4.18.6 4.19.3 4.20.1"),
    "FAULTY_CAPABILITY_HIDDEN": ("4.21.0", "4.20.4"),
    "HIDDEN_MSIX_LOCKED": ("4.22.0", "4.21.2"),
    "MSIX_HOLE_NEEDS_MAPPED_BAR": ("4.21.1 4.22.0", "4.20.4 4.21.0"),
    "RESIZABLE_BARS": ("4.21.0", "4.20.4"),
    "EXTENDED_CAPABILITIES_REBUILT": ("4.22.0", "4.21.2"),
    "PF_FIXUP": ("4.19.2 4.20.1 4.21.0", "4.19.1 4.20.0"),
    "PF_FIXUP_BY_DEFAULT": ("4.22.0", "4.21.2"),
    "PF_FIXUP_OF_RESERVED": ("4.21.0", "4.20.4"),
    "RMRR_OVER_RAM_ENDS_VTD": ("4.19.0", "4.18.6"),
    "IVMD_WITHOUT_UNIT_ENDS_AMD_VI": ("4.17.7 4.18.3 4.19.0", "4.18.4 4.19.1 4.20.0 4.22.0"),
    "IVMD_MEMORY_CHECK_INVERTED": ("4.17.0 4.17.3 4.18.0", "4.17.4 4.18.1 4.19.0 4.22.0"),
    "SATC_READ": ("4.19.0 4.22.0", "4.17.7 4.18.6"),
    "SEGMENTS_READ_FOR_IOMMU": ("4.19.4 4.20.2 4.21.0 4.22.0", "4.17.7 4.18.6 4.19.3 4.20.1"),
    "MMCFG_IN_HOLE": ("4.20.4 4.21.2 4.22.0", "4.17.7 4.19.6 4.20.3 4.21.1"),
    "ONLY_ACCESSIBLE_MAPPED": ("4.19.2 4.20.1 4.21.0 4.22.0", "4.17.7 4.18.6 4.19.1 4.20.0"),
    "EXTRA_REGIONS_TOO_LONG": ("4.17.7 4.19.4 4.20.2 4.21.0", "4.19.5 4.20.3 4.21.1 4.22.0"),
    "MAPPINGS_INTERLEAVE": ("4.17.7 4.22.0", "4.17.6 4.18.5 4.19.5 4.20.3 4.21.1"),
    "UNMAP_CHECKS_CALLER_ONLY": ("4.22.0", "4.21.2"),
    "PVH_DOM0_GIVES_DEVICES": ("4.20.0", "4.19.6"),
    "LINUX_TELLS_GSI": ("6.12.0 6.12.48 6.13.0 7.0.0", "5.10.0 6.1.0 6.11.11"),
    "PCIBACK_NEEDS_GSI": ("6.12.0 6.12.48 6.13.0", "6.1.0 6.11.11"),
    "DISPLAY_COUNTS_AS_IGD": ("4.20.0", "4.19.6"),
    "HVM_DETACH_REVOKES": ("4.18.0", "4.17.7"),
    "DETACH_CUTS_ADDRESSES": ("4.17.5 4.18.5 4.19.3 4.20.1", "4.17.6 4.18.6 4.19.4 4.20.2 4.21.0 4.22.0"),
    "DOMAIN_STATE": ("4.21.0", "4.20.4"),
    "VFCT_GIVEN": ("4.18.0", "4.17.7"),
    "OEM_TABLES_GIVEN": ("4.18.5 4.19.2 4.20.1 4.21.0", "4.17.7 4.18.4 4.19.1 4.20.0"),
    "TPM_TABLES_GIVEN": ("4.19.5 4.20.3 4.21.1 4.22.0", "4.18.6 4.19.4 4.20.2 4.21.0"),
}  # fmt: skip


def named():
    return {name: value for name, value in vars(releases).items() if isinstance(value, releases.Fact)}


@pytest.mark.parametrize("name", sorted(named()))
def test_boundaries(name):
    does, does_not = BOUNDARIES[name]
    fact = named()[name]
    assert [text for text in does.split() if not fact.of(parse_version(text))] == []
    assert [text for text in does_not.split() if fact.of(parse_version(text))] == []


def test_every_row_has_a_boundary_a_commit_and_a_source():
    assert set(named()) == set(BOUNDARIES)
    every = (*FACTS, *LINUX_FACTS)
    assert len(every) == len(named())
    assert len({fact.name for fact in every}) == len(every)
    assert all(fact.commits and fact.source and (fact.since or fact.until) for fact in every)


def test_versions_of_linux_have_rows_of_their_own():
    assert [fact.name for fact in LINUX_FACTS if "Linux" not in fact.name] == []
    assert not set(FACTS) & set(LINUX_FACTS)
    debian = parse_version("6.12.48+deb13-amd64")  # nothing depends on the third number
    assert releases.LINUX_TELLS_GSI.known_of(debian) is True
    assert releases.LINUX_TELLS_GSI.known_of(parse_version("6.1.0-40-amd64")) is False


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_a_row_names_each_branch_once_and_in_order(fact):
    for firsts in (fact.since, fact.until):
        versions = [parse_version(text) for text in firsts]
        assert all(version.patch is not None for version in versions)
        assert [version[:2] for version in versions] == sorted({version[:2] for version in versions})
    assert all(known.branch in NEWEST for known in map(parse_version, (*fact.since, *fact.until)))


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
@pytest.mark.parametrize("branch", NEWEST)
def test_an_unknown_third_number_has_the_safer_answer_where_it_matters(fact, branch):
    build = parse_version(f"{branch}.4-vendor")
    answers = {fact.of(parse_version(f"{branch}.{patch}")) for patch in range(NEWEST[branch] + 2)}
    assert fact.of(build) is (answers.pop() if len(answers) == 1 else fact.safer)
    assert (fact in uncertain(build)) is (fact.known_of(build) is None)


def test_numbers_that_are_known_leave_nothing_uncertain():
    assert uncertain(parse_version("4.20.4")) == []
    names = {fact.name for fact in uncertain(parse_version("4.17.4-qubes"))}
    unsure = (
        releases.WITHOUT_VPCI_PANICS,
        releases.MAPPINGS_INTERLEAVE,
        releases.DETACH_CUTS_ADDRESSES,
        releases.IVMD_MEMORY_CHECK_INVERTED,
    )
    assert names == {fact.name for fact in unsure}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("4.17.7", "read"),
        ("4.17.4-qubes", "build"),
        ("4.22-unstable", "build"),
        ("4.20.5", "newer"),
        ("4.99.0", "newer"),
        ("4.99-unstable", "newer"),
        ("5.0.0", "newer"),
        ("4.16.5", "older"),
    ],
)
def test_what_a_version_is_to_the_table(text, word):
    assert releases.basis(parse_version(text)) == word


def test_without_a_version_each_fact_has_the_safer_answer():
    assert {fact.name: fact.of(None) for fact in FACTS} == {fact.name: fact.safer for fact in FACTS}


def test_first_versions_in_words():
    assert releases.TPM_TABLES_GIVEN.begins == "4.19.5, 4.20.3, 4.21.1 and 4.22.0"
    assert releases.VFCT_GIVEN.begins == "4.18.0"


#  public/sysctl.h and public/domctl.h at the tags
INTERFACE_VERSIONS = {
    "4.17": (0x15, 0x15), "4.18": (0x15, 0x16), "4.19": (0x15, 0x17),
    "4.20": (0x15, 0x17), "4.21": (0x16, 0x17), "4.22": (0x16, 0x18),
}  # fmt: skip


def test_interface_versions_are_known_for_each_branch():
    assert set(INTERFACES) == set(NEWEST)
    assert INTERFACE_VERSIONS.items() <= INTERFACES.items()


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("4.19", "4.20", 2),
        ("4.17", "4.20", 1),
        ("4.20", "4.21", 1),
        ("4.17", "4.21", 0),
        ("4.17", "4.99", None),
    ],
)
def test_interfaces_in_common(one, other, count):
    assert releases.common_interfaces(one, other) == count
    assert releases.common_interfaces(other, one) == count


def test_the_document_has_the_tables():
    script = runpy.run_path(str(ROOT / "scripts" / "releases.py"))
    document = (ROOT / "docs" / "xen-releases.md").read_text(encoding="utf-8")
    for table in ("table", "linux_table"):
        assert script[table]() in document, "put what scripts/releases.py prints into it"


#  rows for administrators, which no rule of pcipt asks
NOT_ASKED = {
    "MAPPINGS_INTERLEAVE", "UNMAP_CHECKS_CALLER_ONLY", "DOMAIN_STATE", "EXTENDED_CAPABILITIES_REBUILT",
    "DISPLAY_COUNTS_AS_IGD", "HVM_DETACH_REVOKES", "DETACH_CUTS_ADDRESSES", "EXTRA_REGIONS_TOO_LONG",
    "PCIBACK_NEEDS_GSI",
}  # fmt: skip


def test_the_document_tells_which_facts_decide_nothing():
    modules = [path for path in ROOT.glob("pcipt/**/*.py") if path.name != "releases.py"]
    asked = {
        word for path in modules for word in re.findall(r"[A-Z][A-Z0-9_]+", path.read_text(encoding="utf-8"))
    }
    assert set(named()) - asked == NOT_ASKED
    document = (ROOT / "docs" / "xen-releases.md").read_text(encoding="utf-8")
    section = document.partition("## Facts that decide nothing")[2].partition("\n## ")[0]
    assert section.count("\n- ") == len(NOT_ASKED)


def test_another_release_is_one_column(monkeypatch):
    """Two entries make a release known to everybody; a row that changes in it gets that version."""
    text = runpy.run_path(str(ROOT / "scripts" / "releases.py"))["table"]()
    monkeypatch.setitem(NEWEST, "4.99", 0)
    monkeypatch.setitem(INTERFACES, "4.99", INTERFACES["4.22"])
    build, release = parse_version("4.99-unstable"), parse_version("4.99.0")
    assert (releases.basis(release), releases.basis(build)) == ("read", "build")
    assert releases.common_interfaces("4.22", "4.99") == 2
    assert [fact.of(release) for fact in FACTS] == [fact.of(parse_version("4.22.0")) for fact in FACTS]
    wider = runpy.run_path(str(ROOT / "scripts" / "releases.py"))["table"]()
    added = [
        len(now.split("|")) - len(before.split("|"))
        for now, before in zip(wider.splitlines(), text.splitlines(), strict=True)
    ]
    assert set(added) == {1}


def numbers_compared(tree):
    """Yield the lines that compare with a version: a tuple of numbers that begins with 4, or its parts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for part in (node.left, *node.comparators):
                first = part.elts[0] if isinstance(part, ast.Tuple) and part.elts else None
                if isinstance(first, ast.Constant) and first.value == 4:
                    yield node.lineno
                if isinstance(part, ast.Attribute) and part.attr in {"major", "minor", "patch"}:
                    yield node.lineno


def test_no_other_module_compares_versions():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in ROOT.glob("pcipt/**/*.py")
        if path.name != "releases.py"
        for line in numbers_compared(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_a_comparison_of_versions_is_seen():
    assert list(numbers_compared(ast.parse("a >= (4, 19)\nx.minor < 3\nb == (1, 2)"))) == [1, 2]


def test_the_parts_of_a_version():
    assert Version(4, 20, 4).branch == "4.20"
