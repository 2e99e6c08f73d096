#!/bin/sh
# Installs what building needs and pip cannot bring: a C compiler, Python's headers, the venv module.
set -eu
PYTHON=${PYTHON:-python3}
LOG=${LOG:-setup.log}

missing() {
    packages=
    command -v "$PYTHON" >/dev/null 2>&1 || { echo " python3 python3-venv python3-dev gcc libc6-dev"; return; }
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
    "$PYTHON" - <<'EOF' 2>/dev/null || packages="$packages python3-dev"
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))
EOF
    { command -v cc >/dev/null 2>&1 && echo '#include <stdint.h>' | cc -E - >/dev/null 2>&1; } ||
        packages="$packages gcc libc6-dev"
    echo "$packages"
}

packages=$(missing)
[ -n "$(echo $packages)" ] || exit 0
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root=sudo
else
    echo "pcipt: missing:$packages; install them, as root: apt-get install$packages" >&2
    exit 1
fi
command -v apt-get >/dev/null 2>&1 || {
    echo "pcipt: missing:$packages; there is no apt-get here, install what corresponds to them" >&2
    exit 1
}
echo "pcipt: installing these Debian packages:$packages (log: $LOG)"
export DEBIAN_FRONTEND=noninteractive
{ $as_root apt-get -q update && $as_root apt-get -q install --no-install-recommends -y $packages; } </dev/null >>"$LOG" 2>&1 || {
    tail -n 20 "$LOG" >&2
    echo "pcipt: apt-get could not install:$packages; its output is in $LOG" >&2
    exit 1
}
