#!/bin/sh
# Installs the program and all that belongs to it below DESTDIR: units, settings, man pages, completion, catalog and
# documents, as the Debian package does. `make install` and the RPM use it. Settings that exist stay.
#   install.sh BUILDER PYTHON PREFIX UNITDIR
# BUILDER is a Python that builds, PYTHON the one that will run the program; both are paths.
set -eu
builder=$1 python=$2 prefix=$3 units=$4
root=${DESTDIR:-}

needed="attrs cffi pyroute2 structlog"
"$builder" -c 'import cffi, setuptools' 2>/dev/null && command -v cc >/dev/null 2>&1 || {
    echo "pcipt: to build, $builder needs cffi and setuptools, and there must be a C compiler with Python's headers:" >&2
    echo "  Debian: apt-get install gcc python3-dev python3-cffi python3-setuptools" >&2
    echo "  Fedora: dnf install gcc python3-devel python3-cffi python3-setuptools" >&2
    exit 1
}
[ -n "$root" ] || "$python" -I -c 'import attr, cffi, pyroute2, structlog' 2>/dev/null || {
    echo "pcipt: to run, $python needs $needed:" >&2
    echo "  Debian: apt-get install python3-attr python3-cffi-backend python3-pyroute2 python3-structlog" >&2
    echo "  Fedora: dnf install python3-attrs python3-cffi python3-pyroute2 python3-structlog" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PYTHONWARNINGS=ignore "$builder" setup.py --quiet build --build-base "$work/base" --build-lib "$work/lib" \
    > "$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; exit 1; }

program=$prefix/lib/pcipt
rm -rf "$root$program/pcipt"
install -d "$root$program" "$root$prefix/bin"
find "$work/lib" -name __pycache__ -prune -exec rm -rf {} +
cp -r "$work/lib/pcipt" "$root$program/"
find "$root$program" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
find "$root$program" -name '*.so' -exec chmod 755 {} +
cat > "$root$prefix/bin/pcipt" <<END
#!$python -I
import sys

sys.path.insert(0, "$program")
from pcipt.cli.main import main

sys.exit(main())
END
chmod 755 "$root$prefix/bin/pcipt"

put() { # FILE PATH: a file with the usual mode
    install -D -m 644 "$1" "$root$2"
}

for kind in pcipt.1 pcipt.toml.5 pcipt.toml bash zsh fish; do
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$work/lib" "$builder" scripts/describe "$kind" > "$work/$kind"
done
for unit in pcipt pcipt-policy pcipt-boot; do
    sed "s|/usr/bin/pcipt|$prefix/bin/pcipt|" "systemd/$unit.service" > "$work/$unit.service"
    put "$work/$unit.service" "$units/$unit.service"
done
sh scripts/install-initramfs.sh "$root"
put systemd/pcipt.socket "$units/pcipt.socket"
put systemd/pcipt.sysusers /usr/lib/sysusers.d/pcipt.conf
put systemd/pcipt.tmpfiles /usr/lib/tmpfiles.d/pcipt.conf
put systemd/pcipt.catalog /usr/lib/systemd/catalog/pcipt.catalog
[ -e "$root/etc/pcipt/pcipt.toml" ] || put "$work/pcipt.toml" /etc/pcipt/pcipt.toml
put "$work/pcipt.1" "$prefix/share/man/man1/pcipt.1"
put "$work/pcipt.toml.5" "$prefix/share/man/man5/pcipt.toml.5"
put docs/man/pcipt-daemon.8 "$prefix/share/man/man8/pcipt-daemon.8"
put "$work/bash" "$prefix/share/bash-completion/completions/pcipt"
put "$work/zsh" "$prefix/share/zsh/site-functions/_pcipt"
put "$work/fish" "$prefix/share/fish/vendor_completions.d/pcipt.fish"

# All documents stand in one folder, the list is that of the Debian package: the links follow.
doc=$prefix/share/doc/pcipt
while read -r name; do
    if [ -d "$name" ]; then
        find "$name" -type f | while read -r file; do put "$file" "$doc/${file#docs/}"; done
    else
        put "$name" "$doc/${name##*/}"
    fi
done < debian/pcipt.docs
sed -i -E 's,\]\((docs|\.\./pcipt/daemon/control)/,](,g; s,\]\(\.\./([A-Z]),](\1,g' "$root$doc"/*.md

[ -z "$root" ] || exit 0
# Only root can write there: without bytecode each command of a user would compile all that it loads.
"$python" -I -m compileall -q "$program/pcipt" || true
systemd-sysusers pcipt.conf && systemd-tmpfiles --create pcipt.conf && systemctl daemon-reload || true
echo "installed: $prefix/bin/pcipt. In dom0, start the service now and at each boot: systemctl enable --now pcipt"
