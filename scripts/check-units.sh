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
sed 's|^ExecStart=.*|ExecStart=/bin/true|; /^Documentation=/d' systemd/pcipt.service > "$out/pcipt.service"
sed '/^Documentation=/d' systemd/pcipt.socket > "$out/pcipt.socket"
sed 's|^ExecStart=.*|ExecStart=/bin/true|; /^Documentation=/d' systemd/pcipt-policy.service > "$out/pcipt-policy.service"
sed 's|^ExecStart=.*|ExecStart=/bin/true|; /^Documentation=/d' systemd/pcipt-boot.service > "$out/pcipt-boot.service"
systemd-analyze verify "$out/pcipt.service" "$out/pcipt-policy.service" "$out/pcipt-boot.service" "$out/pcipt.socket" 2> "$out/complaints" || true
if [ -s "$out/complaints" ]; then
    cat "$out/complaints" >&2
    exit 1
fi
systemd-analyze security --no-pager --offline=yes --threshold=25 "$out/pcipt.service" > "$out/report" || {
    cat "$out/report" >&2
    exit 1
}
tail -n 1 "$out/report"
