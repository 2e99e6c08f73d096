#!/bin/sh
# Compiles our C as strictly as the compiler can; packages build without -Werror.
set -eu
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for source in csrc/*.c; do
    ${CC:-cc} -std=c11 -O2 -Wall -Wextra -Werror -Wpedantic -Wshadow -Wconversion -Icsrc -c "$source" -o "$out/strict.o"
    ${CC:-cc} -std=c11 -O1 -g -Wall -Wextra -Werror -fsanitize=address,undefined -Icsrc -c "$source" -o "$out/sanitized.o"
done
echo "C: no warnings"
