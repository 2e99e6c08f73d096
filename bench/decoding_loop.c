/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bare loop that bench/decode.py compares with: a latch and nothing else, records and output in memory. */
#include <stddef.h>
#include <stdint.h>

struct access { uint64_t n, address; uint32_t value; uint16_t vcpu; uint8_t size, flags; };
struct config { uint64_t n; uint32_t value; uint16_t segment; uint8_t bus, devfn; uint16_t offset, vcpu; uint8_t size, flags; uint16_t reserved; };

size_t bare_loop(const struct access *records, size_t count, struct config *out, size_t mask)
{
    uint32_t latch = 0;
    size_t i, made = 0;

    for (i = 0; i < count; i++) {
        const struct access *a = &records[i];

        if (!(a->flags & 1))
            continue;
        if (a->address == 0xcf8 && a->size == 4) {
            latch = a->value;
        } else if ((a->address & ~3ull) == 0xcfc && latch >> 31) {
            struct config *c = &out[made++ & mask];

            c->n = a->n;
            c->value = a->value;
            c->segment = 0;
            c->bus = (uint8_t)(latch >> 16);
            c->devfn = (uint8_t)(latch >> 8);
            c->offset = (uint16_t)((latch & 0xfc) | (a->address & 3));
            c->vcpu = a->vcpu;
            c->size = a->size;
            c->flags = a->flags;
            c->reserved = 0;
        }
    }
    return made;
}
