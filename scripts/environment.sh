#!/bin/sh
# Makes the Python environment in $VENV with pcipt, what its tests and checks need, and both C extensions. What pip
# prints goes to $LOG; the end of it is shown if pip fails.
set -eu
PYTHON=${PYTHON:-python3} VENV=${VENV:-.venv} LOG=${LOG:-setup.log}

echo "pcipt: making the environment $VENV: pcipt and what its tests need, from the Python package index (log: $LOG)"
pip() {
    "$VENV/bin/python" -m pip install --disable-pip-version-check "$@" >>"$LOG" 2>&1 || {
        tail -n 20 "$LOG" >&2
        echo "pcipt: pip could not install what is needed; its output is in $LOG" >&2
        exit 1
    }
}
"$PYTHON" -m venv "$VENV" >>"$LOG" 2>&1 || { tail -n 20 "$LOG" >&2; exit 1; }
pip --upgrade setuptools wheel cffi
pip --no-build-isolation --config-settings editable_mode=compat -e '.[test,check]'
