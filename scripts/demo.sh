#!/bin/sh
# The main job in a minute: the daemon on a recorded machine with a simulated Xen, then what it has to say.
set -eu
machine=$1
pcipt=${BIN:-.venv/bin}/pcipt
work=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true; rm -rf "$work"' EXIT

echo "== pcipt daemon on the machine recorded in $machine (simulated Xen)"
"$pcipt" daemon --replay "$machine" --state "$work/state" --socket "$work/control" 2>&1 &
daemon=$!

# The control socket opens when the recording has been played.
tries=0
until [ -S "$work/control" ]; do
    kill -0 "$daemon" 2>/dev/null || { wait "$daemon"; exit 1; }
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "the daemon does not get ready" >&2; exit 1; }
    sleep 0.1
done

echo
echo "== pcipt status"
"$pcipt" status --socket "$work/control"

kill -TERM "$daemon"
wait "$daemon"
daemon=
