#!/bin/sh
# Looks at the units the way systemd does, where its tools are installed.
set -eu
if ! command -v systemd-analyze >/dev/null 2>&1; then
    echo "units: systemd-analyze is not installed, not checked"
    exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# Neither the program nor its man pages need to be installed here.
for unit in pcipt.service pcipt-policy.service pcipt-boot.service pcipt.socket; do
    sed 's|^ExecStart=.*|ExecStart=/bin/true|; /^Documentation=/d' "systemd/$unit" > "$out/$unit"
done
systemd-analyze verify "$out"/pcipt*.service "$out/pcipt.socket" 2> "$out/complaints" || true
if [ -s "$out/complaints" ]; then
    cat "$out/complaints" >&2
    exit 1
fi
systemd-analyze security --no-pager --offline=yes --threshold=25 "$out/pcipt.service" > "$out/report" || {
    cat "$out/report" >&2
    exit 1
}
tail -n 1 "$out/report"
