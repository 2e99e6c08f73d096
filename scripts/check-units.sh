#!/bin/sh
# Looks at the unit the way systemd does, where its tools are installed.
set -eu
if ! command -v systemd-analyze >/dev/null 2>&1; then
    echo "units: systemd-analyze is not installed, not checked"
    exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
sed 's|^ExecStart=.*|ExecStart=/bin/true|; /^Documentation=/d' systemd/pcipt.service > "$out/pcipt.service"
systemd-analyze verify "$out/pcipt.service"
systemd-analyze security --no-pager --offline=yes --threshold=25 "$out/pcipt.service" > "$out/report" || {
    cat "$out/report" >&2
    exit 1
}
tail -n 1 "$out/report"
