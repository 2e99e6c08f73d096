"""The glossary: README and pcipt(1) explain the same words in the same way, and README does so early."""

import re

from tests.trees import REPO

NEEDED = {
    "ghost", "orphan", "stale", "withdrawn", "restored", "quarantine", "released", "refused", "decode",
    "trapped", "vPCI", "1:1 map", "reserved region", "finding", "guard", "ledger", "announce",
}  # fmt: skip
README = (REPO / "README.md").read_text()


def explained_in_readme():
    table = README.partition("\n## Words\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE)
    return {word: text.replace("`", "") for word, text in rows if word != "word"}


def explained_in_manual():
    section = (REPO / "docs/man/pcipt.1.in").read_text().partition(".SH WORDS\n")[2].partition(".SH ")[0]
    rows = re.findall(r"^\.TP\n\\fB(.+)\\fR\n((?:[^.].*\n)+)", section, re.MULTILINE)
    return {word: " ".join(re.sub(r"\\f[BR]", "", text).replace("\\-", "-").split()) for word, text in rows}


def test_both_explain_the_same_words_alike():
    assert explained_in_readme() == explained_in_manual()
    assert set(explained_in_readme()) >= NEEDED


def test_the_words_stand_in_the_first_half_of_readme_and_the_hosts_in_its_first_screen():
    lines = README.splitlines()
    assert lines.index("## Words") < len(lines) / 2
    assert lines.index("## What each host gets") < 15
    hosts = README.partition("## What each host gets")[2].partition("\n## ")[0]
    for host in ("PV dom0", "PVH dom0", "Qubes OS", "XCP-ng", "no Xen"):
        assert re.search(rf"^\| [^|]*{host}", hosts, re.MULTILINE), host
