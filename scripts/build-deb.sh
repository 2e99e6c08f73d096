#!/bin/sh
# Builds the Debian package out of a copy of this checkout, so that nothing is left in it, and puts it into dist/.
# As root, what building needs is installed from Debian (debian/control says what that is).
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin # Debian's own tools: another Python in front would build for itself
target=${1:-dist}
for tool in dpkg-buildpackage apt-get; do
    command -v "$tool" >/dev/null 2>&1 || {
        [ "$tool" = dpkg-buildpackage ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && continue
        echo "pcipt: $tool is not here: a Debian package is built on Debian 12 or newer" >&2
        exit 1
    }
done
if ! dpkg-checkbuilddeps 2>/dev/null; then
    if [ "$(id -u)" != 0 ]; then
        echo "pcipt: $(dpkg-checkbuilddeps 2>&1 | tail -n 1); as root: apt-get build-dep ./" >&2
        exit 1
    fi
    echo "installing what building the package needs"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install --no-install-recommends -y dpkg-dev >/dev/null
    apt-get -qq build-dep --no-install-recommends -y ./ >/dev/null
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/pcipt" "$target"
# What a commit of the checkout as it stands would hold; without git, an unpacked source distribution, all of it.
if git -c safe.directory='*' ls-files >/dev/null 2>&1; then
    git -c safe.directory='*' ls-files --cached --others --exclude-standard
else
    find . -type f -o -type l | grep -v -e '^\./\.venv/' -e '^\./build/' -e '^\./dist/' -e '\.so$' -e '/__pycache__/'
fi | while read -r name; do
    if [ -e "$name" ] || [ -L "$name" ]; then echo "$name"; fi
done | tar -cf - --no-recursion -T - | tar -xf - -C "$work/pcipt"

(cd "$work/pcipt" && dpkg-buildpackage --build=binary --no-sign) > "$work/log" 2>&1 || {
    tail -n 40 "$work/log" >&2
    exit 1
}
cp "$work"/*.deb "$work"/*.changes "$work"/*.buildinfo "$target"/
ls "$target"/pcipt_*.deb
