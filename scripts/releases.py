"""Print the tables of docs/xen-releases.md from pcipt/xen/releases.py: `python scripts/releases.py`."""

from pcipt.xen.releases import FACTS, LINUX_FACTS, NEWEST, Fact, parse_version


def cell(fact: Fact, branch: str) -> str:
    """Return what versions of a branch do: yes, no, or from and until which version."""
    said = [fact.of(parse_version(f"{branch}.{patch}")) for patch in range(NEWEST[branch] + 1)]
    if len(set(said)) == 1:
        return "yes" if said[0] else "no"
    changes = [patch for patch in range(1, len(said)) if said[patch] != said[patch - 1]]
    return ", ".join(f"{'from' if said[patch] else 'until'} .{patch}" for patch in changes)


def table() -> str:
    """Return the table as Markdown, one row a fact."""
    heads = ["what Xen does", *NEWEST, "unknown build", "commits", "source"]
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for fact in FACTS:
        cells = [cell(fact, branch) for branch in NEWEST]
        safer = "yes" if fact.safer else "no"
        rows.append("| " + " | ".join([fact.name, *cells, safer, " ".join(fact.commits), fact.source]) + " |")
    return "\n".join(rows)


def linux_table() -> str:
    """Return the table of what Linux in dom0 does as Markdown, one row a fact."""
    heads = ["| what Linux does | from | commits | source |", "|---|---|---|---|"]
    rows = (
        f"| {fact.name} | {fact.begins} | {' '.join(fact.commits)} | {fact.source} |" for fact in LINUX_FACTS
    )
    return "\n".join([*heads, *rows])


if __name__ == "__main__":
    print(table(), linux_table(), sep="\n\n")
