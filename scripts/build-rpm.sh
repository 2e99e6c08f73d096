#!/bin/sh
# Builds the RPMs of packaging/pcipt.spec, one for each Python of a dom0, out of a copy of this checkout, into dist/.
#   build-rpm.sh TARGET PYTHON     the system's own Python builds; PYTHON does if that lacks cffi or setuptools
set -eu
target=$1 python=$2
/usr/bin/python3 -I -c 'import cffi, setuptools' 2>/dev/null && python=/usr/bin/python3
command -v rpmbuild >/dev/null 2>&1 || {
    echo "pcipt: rpmbuild is not here; Debian: apt-get install rpm, Fedora: dnf install rpm-build" >&2
    exit 1
}
case $python in */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$target" "$work/tree"
if git -c safe.directory='*' ls-files >/dev/null 2>&1; then
    git -c safe.directory='*' ls-files --cached --others --exclude-standard
else
    find . -type f -o -type l | grep -v -e '^\./\.venv/' -e '^\./build/' -e '^\./dist/' -e '\.so$' -e '/__pycache__/'
fi | while read -r name; do
    if [ -e "$name" ] || [ -L "$name" ]; then echo "$name"; fi
done | tar -cf - --no-recursion -T - | tar -xf - -C "$work/tree"
for minor in 3.13 3.11; do
    mkdir -p "$work/$minor/BUILD"
    cp "$work/tree/LICENSE" "$work/$minor/BUILD/"
    rpmbuild -bb --nodeps --quiet --define "_topdir $work/$minor" --define "python_of_dom0 $minor" \
        --define "tree $work/tree" --define "build_python $python" \
        "$work/tree/packaging/pcipt.spec" > "$work/log" 2>&1 || {
        tail -n 40 "$work/log" >&2
        exit 1
    }
    cp "$work/$minor"/RPMS/*/*.rpm "$target"/
done
ls "$target"/pcipt-*.rpm
