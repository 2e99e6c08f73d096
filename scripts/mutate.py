"""Mutation testing: changes one place of a module, runs the tests that reach it, lists what no test notices.

Texts, annotations, decorators and assertions stay. A test reaches what its function runs; what runs
elsewhere, at import or in a fixture, is reached by all that reach the module. A test kills a change if it
fails, or takes longer than 10 s and five times the slowest. They run in a copy of the tree, in build/mutate,
the fastest first; what they reach is kept there for an equal tree. A change is given at import, not written.
"""

import argparse
import ast
import ctypes
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import coverage
import hypothesis.stateful  # noqa: F401 - loaded here, it need not be loaded in every child
import pytest

PAIRS = """setdefault:get Lt:LtE LtE:Lt Gt:GtE GtE:Gt Eq:NotEq NotEq:Eq Is:IsNot IsNot:Is In:NotIn NotIn:In
And:Or Or:And Add:Sub Sub:Add Mult:Add BitOr:BitAnd BitAnd:BitOr BitXor:BitOr any:all all:any LShift:RShift
RShift:LShift Break:Continue Continue:Break min:max max:min add:discard discard:add pop:get union:intersection
intersection:union difference:union issubset:issuperset issuperset:issubset"""
SWAPS: dict[Any, Any] = {getattr(ast, a, a): getattr(ast, b, b) for a, b in re.findall(r"(\w+):(\w+)", PAIRS)}
OPTIONAL = {"key", "default"}  # arguments that a call may leave out: also what has a default in the tree
LEFT = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "build", "dist")
PYTEST = ["-xq", "--rootdir=.", "-p", "no:cacheprovider", "-Wignore::pytest.PytestAssertRewriteWarning"]
FORK, CPUS, NULL = get_context("fork"), os.cpu_count() or 1, os.open(os.devnull, os.O_WRONLY)
Change = tuple[str, int, int, str, bytes]  # path, first line of the statement, line behind, words, source
MEASURED: list[Any] = []  # for each part of the tests: seconds of a test, tests that run a line
SURVIVED = {10: "", 15: "", 0: " (no test reaches it)"}  # exit codes: pytest's and 10; too late are 1, -9


def variants(node: Any) -> Iterator[tuple[Any, str]]:  # noqa: C901 - a table
    """Give what may be changed in a node but not below: a place, and what stands there instead."""
    match node:
        case ast.If(test) | ast.IfExp(test) if ast.unparse(test) != "TYPE_CHECKING":
            yield from ((test, "True"), (test, "False"))
        case ast.Return(ast.expr() as value) if not isinstance(value, ast.Constant):
            yield value, "None"
        case ast.Constant(bool() | int() | float() as value):
            yield node, str(not value if isinstance(value, bool) else 0 if value == 1 else value + 1)
        case ast.UnaryOp(ast.Not()):
            yield node, f"({ast.unparse(node.operand)})"
        case ast.Compare(left, [op, *ops], others):
            yield node, ast.unparse(ast.Compare(left, [SWAPS[type(op)](), *ops], others))
        case ast.BoolOp(op) | ast.BinOp(op=op) | ast.AugAssign(op=op):
            text = ast.unparse(type(node)(**vars(node) | {"op": SWAPS.get(type(op), ast.Mult)()}))
            yield from ((node, other) for other in (text, "pass")[: 1 + isinstance(node, ast.AugAssign)])
        case ast.Break() | ast.Continue():
            yield node, ast.unparse(SWAPS[type(node)]())
        case ast.Expr(ast.Call()) | ast.Delete() | ast.Assign([ast.Attribute() | ast.Subscript()]):
            yield node, "pass"
        case ast.Tuple(ctx=ast.Load()) | ast.List(ctx=ast.Load()) | ast.Set():
            yield from ((part, "*()") for part in node.elts if not isinstance(part, ast.Constant | ast.IfExp))
        case ast.Call(ast.Name(name) | ast.Attribute(_, name) as func) if name in SWAPS:
            yield func, ast.unparse(func).removesuffix(name) + SWAPS[name]
        case ast.keyword(name, value) if name in OPTIONAL and "'" not in ast.unparse(value):
            yield node, "**{}"


def changes_of(path: str, source: bytes) -> Iterator[Change]:
    starts = [0, *(found.end() for found in re.finditer(b"\n", source))]
    todo: list[tuple[Any, ...]] = [(ast.parse(source), 0, 0)]
    for node, *lines in todo:
        if isinstance(node, ast.JoinedStr | ast.Assert) or isinstance(getattr(node, "slice", 0), ast.Tuple):
            continue
        if issubclass(type(node), ast.stmt):
            lines[:] = node.lineno, getattr(node, "body", [ast.Pass(lineno=node.end_lineno + 1)])[0].lineno
        for place, text in variants(node):
            head = source[: starts[place.lineno - 1] + place.col_offset]
            tail = source[starts[place.end_lineno - 1] + place.end_col_offset :]
            told = f"{path}:{place.lineno}: `{ast.unparse(place)[:100]}` -> `{text[:100]}`"
            yield path, *lines, told, head + text.encode() + tail
        vars(node).update(annotation=None, returns=None, decorator_list=[])
        todo += [(part, *lines) for part in ast.iter_child_nodes(node)]


def importing(texts: dict[str, str], modules: list[str]) -> list[str]:
    """Name the tests that import the modules: by what name ever, and through others too."""
    found, more = set[str](), set(modules)
    while more:
        found |= more
        way = r"\b{0.parent.name}(?:\.{0.stem}\b|\.{{|[\w.]* import [^(\n]*(?:\([^)]*)?\b{0.stem}\b)"
        words = re.compile("|".join(way.format(Path(path.replace("/__init__", ""))) for path in more))
        more = {path for path, text in texts.items() if words.search(text)} - found
    return sorted(path for path in found if re.match(r"tests/(?!lab/).*test_", path))


def measure(files: list[str], modules: list[str]) -> tuple[str, Any]:
    """Run tests: which fails, how long each takes, which run a line ("" is outside of their functions)."""
    traced = coverage.Coverage(data_file=None, config_file=False, include=modules)
    failed, seconds = ["collecting them"], dict[str, float]()

    class Plugin:
        def pytest_runtest_logreport(self, report: Any) -> None:
            seconds[report.nodeid] = seconds.get(report.nodeid, 0) + report.duration
            failed.extend([report.nodeid] * report.failed)
            traced.switch_context(report.nodeid if report.when == "setup" else "")

    os.dup2(NULL, 1)
    traced.start()
    with suppress(Exception):
        failed[0] *= pytest.main([*PYTEST, *files], plugins=[Plugin()]) not in {0, 5}
    lines = {path: traced.get_data().contexts_by_lineno(os.path.abspath(path)) for path in modules}
    return failed[-1], [seconds, lines]


def outcome(change: Change, patience: int) -> int:
    path, load, tests = os.path.abspath(change[0]), SourceFileLoader.get_code, dict[str, float]()
    for seconds, reached in MEASURED:
        lines = reached[change[0]]
        names = {name for line in range(change[1], change[2]) for name in lines.get(str(line), [])}
        if "" in names:
            names = {name for among in lines.values() for name in among if name} or {*seconds}
        tests |= {name: seconds[name] for name in names}
    if not tests:
        return 0

    class Plugin:
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            items[:] = sorted((i for i in items if i.nodeid in tests), key=lambda i: tests[i.nodeid])

    def child() -> None:
        os.setsid()
        os.dup2(NULL, 1)
        os.dup2(NULL, 2)
        SourceFileLoader.get_code = lambda loader, name: (  # type: ignore[assignment, method-assign]
            compile(change[4], path, "exec") if loader.path == path else load(loader, name)  # type: ignore[attr-defined]
        )
        limits = f"--timeout={patience + 5 * max(tests.values())}", "--timeout-method=thread"
        files = sorted({test.partition("::")[0] for test in tests})
        with suppress(BaseException):
            os._exit(10 + pytest.main([*PYTEST, *limits, *files], plugins=[Plugin()]))
        os._exit(13)

    process: Any = FORK.Process(target=child)
    process.start()
    process.join(5 * (patience + sum(tests.values())))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.join()
    return int(process.exitcode)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="+", type=Path)
    for name, default in {"sample": 40, "seed": 1, "least": 0, "patience": 10}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given, kept = parser.parse_args(), Path("build/mutate").absolute()
    shutil.rmtree(kept / "copy", ignore_errors=True)
    shutil.copytree(".", kept / "copy/tree", symlinks=True, ignore=LEFT)
    (kept / "copy/shared").symlink_to(Path("../shared").resolve())
    os.chdir(kept / "copy/tree")
    sys.path[0] = os.getcwd()
    os.environ |= {"PYTHONPATH": os.getcwd(), "PCIPT_HYPOTHESIS": "mutate", "COVERAGE_CORE": "ctrace"}
    modules = sorted({str(at) for top in given.modules for at in (top, *top.rglob("*.py")) if at.is_file()})
    modules or parser.error("no module is there")
    read = {str(f): f.read_bytes() for top in (".", "../shared") for f in Path(top).rglob("*") if f.is_file()}
    texts = {path: text.decode() for path, text in read.items() if path.endswith(".py")}
    OPTIONAL.update(re.findall(r"(\w+): [^=\n]+ = ", "\n".join(texts.values())))
    found = [change for path in modules for change in changes_of(path, read[path])]
    sample = sorted(Random(given.seed).sample(found, min(given.sample, len(found))))  # noqa: S311
    key = hashlib.sha256(repr((sys.version, coverage.__version__, modules, sorted(read.items()))).encode())
    cache = kept / f"{key.hexdigest()}.json"
    if not cache.exists():
        tests = importing(texts, modules)
        parts = [tests[n::CPUS] for n in range(min(CPUS, len(tests)))]
        with ProcessPoolExecutor(CPUS, FORK, ctypes.CDLL(None).prctl, (1, 9)) as pool:
            measured = list(pool.map(measure, parts, [modules] * CPUS))
        if failed := [told for told, _ in measured if told]:
            parser.exit(2, f"mutate: the tests fail without a change: {failed[0]}\n")
        Path("../new").write_text(json.dumps([answer for _, answer in measured]))
        Path("../new").rename(cache)
    MEASURED.extend(json.loads(cache.read_text()))
    killed, late = 0, []
    with ProcessPoolExecutor(CPUS, FORK, ctypes.CDLL(None).prctl, (1, 9)) as pool:
        for n, code in enumerate(pool.map(outcome, sample, [given.patience] * len(sample))):
            out, end = (sys.stdout, SURVIVED[code]) if code in SURVIVED else (sys.stderr, " (killed)")
            print(sample[n][3] + end, file=out)
            killed += code not in SURVIVED
            late += [sample[n][3].partition(": ")[0]] * (code in {1, -9})
    print(f"took too long: {', '.join(late) or 'none'}\n{killed} of {len(sample)} killed")
    return int(100 * killed < given.least * len(sample))


if __name__ == "__main__":
    sys.exit(main())
