"""What scripts/describe writes from the program's own parsers."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def describe(kind):
    """Give one of its kinds."""
    command = [sys.executable, "scripts/describe", kind]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
