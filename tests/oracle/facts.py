"""Hold the table of releases (pcipt/xen/releases.py) against Xen's git: which version has a commit first?

A stable branch has a commit of master itself, or a commit whose message names it ("master commit: …").
"""

import subprocess

from pcipt.xen.releases import FACTS, NEWEST, parse_version
from tests.oracle.build import NoSourceError, git_directory


class Git:
    def __init__(self, path):
        self._path = git_directory(path)

    def ask(self, *arguments, check=True):
        command = ["git", f"--git-dir={self._path}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise NoSourceError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
        return done.returncode, done.stdout.strip()

    def has(self, commit, tag):
        return self.ask("merge-base", "--is-ancestor", commit, tag, check=False)[0] == 0

    def first_on(self, branch, commit):
        """Give the third number of the first version of a branch that has a commit; None if none has it."""
        tags = [f"RELEASE-{branch}.{patch}" for patch in range(NEWEST[branch] + 1)]
        names = {commit} if self.has(commit, tags[-1]) else set()
        if not names:
            before = f"RELEASE-{_before(branch)}.0" if _before(branch) else f"{tags[0]}~2000"
            names |= set(
                self.ask("log", tags[-1], f"^{before}", f"--grep={commit}", "--format=%H")[1].split()
            )
        for patch, tag in enumerate(tags):
            if any(self.has(name, tag) for name in names):
                return patch
        return None


def _before(branch):
    branches = list(NEWEST)
    return branches[branches.index(branch) - 1] if branches.index(branch) else None


def wrong_facts(source):
    """Give a line for each row and branch where the table and Xen's git differ."""
    git, wrong = Git(source), []
    for fact in FACTS:
        commits = [git.ask("rev-parse", f"{commit}^{{commit}}")[1] for commit in fact.commits]
        for branch in NEWEST:
            firsts = [git.first_on(branch, commit) for commit in commits]
            first = None if None in firsts else max(firsts)
            told = _told(fact.since or fact.until, branch)
            over = fact.since and fact.until and _told(fact.until, branch) == 0
            if told != first and not over:  # the commit was in a stable branch only
                wrong.append(f"{fact.name}: {branch}: the table says {told}, git says {first}")
    return wrong


def _told(firsts, branch):
    """Give the third number from which a list of first versions holds on a branch; None if it never does."""
    by_branch = {parse_version(text).branch: parse_version(text).patch for text in firsts}
    if branch in by_branch:
        return by_branch[branch]
    order = list(NEWEST)
    return 0 if order.index(branch) > max(order.index(known) for known in by_branch) else None
