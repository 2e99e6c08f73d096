/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The decoders on any bytes: they stay inside their buffers, say nothing that cannot be, and decode a stream that is
 * cut in two as they decode it whole.
 *
 * LLVMFuzzerTestOneInput is what a fuzzer calls; with -DFILE_DRIVER the program runs on files, or on random bytes:
 *     fuzz_decode FILE...          fuzz_decode -r SEED COUNT
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

#define ROOM 64

static void fail(const char *what)
{
    fprintf(stderr, "fuzz_decode: %s\n", what);
    abort();
}

struct output {
    struct pcipt_config *entries;
    size_t count, room;
};

static void keep(struct output *output, const struct pcipt_config *entries, size_t count)
{
    if (output->count + count > output->room) {
        output->room = 2 * (output->count + count);
        output->entries = realloc(output->entries, output->room * sizeof(*entries));
        if (!output->entries)
            fail("no memory");
    }
    if (count)
        memcpy(output->entries + output->count, entries, count * sizeof(*entries));
    output->count += count;
}

static void check(const struct pcipt_config *entry)
{
    if (entry->flags & PCIPT_LOST)
        return;
    if (entry->offset + entry->size > 4096)
        fail("an access beyond the configuration space");
    if (entry->size && (entry->offset & 3) + entry->size > 4)
        fail("a part that is not within one register");
    if (entry->size && entry->size < 4 && entry->value >> 8 * entry->size)
        fail("a value wider than its access");
}

/* Decodes records one buffer after the other, skipping what is damaged. */
static void run_ports(struct pcipt_ports *ports, const struct pcipt_access *records, size_t count, struct output *output)
{
    struct pcipt_config *out = malloc(ROOM * sizeof(*out)); /* on the heap: the sanitizer watches its ends */
    size_t used, made, i;

    while (count) {
        int result = pcipt_ports_decode(ports, records, count, out, ROOM, &used, &made);

        if (result && result != -EBADMSG)
            fail("an unknown result");
        if (used > count || made > ROOM || (!result && !used))
            fail("counts that cannot be");
        for (i = 0; i < made; i++)
            check(&out[i]);
        keep(output, out, made);
        if (result)
            used++;
        records += used;
        count -= used;
    }
    free(out);
}

static void compare(struct output *whole, struct output *parted)
{
    if (whole->count != parted->count)
        fail("a cut stream gives another number of accesses");
    if (whole->count && memcmp(whole->entries, parted->entries, whole->count * sizeof(*whole->entries)))
        fail("a cut stream gives other accesses");
    free(whole->entries);
    free(parted->entries);
}

static void fuzz_ports(uint8_t options, size_t cut, const uint8_t *data, size_t size)
{
    struct output whole = {0}, parted = {0};
    struct pcipt_ports *ports = malloc(sizeof(*ports));
    size_t count = size / sizeof(struct pcipt_access);
    struct pcipt_access *records = malloc(count * sizeof(*records) + 1);

    memcpy(records, data, count * sizeof(*records));
    cut = count ? cut % (count + 1) : 0;
    pcipt_ports_init(ports, options & 0xf);
    if (options & 0x10)
        (void)pcipt_ports_region(ports, 0xb0000000, 1, 2, 0x80);
    run_ports(ports, records, count, &whole);
    pcipt_ports_init(ports, options & 0xf);
    if (options & 0x10)
        (void)pcipt_ports_region(ports, 0xb0000000, 1, 2, 0x80);
    run_ports(ports, records, cut, &parted);
    run_ports(ports, records + cut, count - cut, &parted);
    compare(&whole, &parted);
    free(records);
    free(ports);
}

static size_t run_trace(struct pcipt_trace *trace, struct pcipt_ports *ports, const uint8_t *data, size_t size,
                        struct output *output)
{
    struct pcipt_access *out = malloc(ROOM * sizeof(*out));
    uint8_t *copy = malloc(size + 1); /* exactly as long as it may be read */
    size_t used, made, at = 0;

    memcpy(copy, data, size);
    copy = realloc(copy, size ? size : 1);
    for (;;) {
        int result = pcipt_trace_decode(trace, copy + at, size - at, out, ROOM, &used, &made);

        if (used > size - at || made > ROOM)
            fail("counts that cannot be");
        at += used;
        run_ports(ports, out, made, output);
        if (result) {
            uint32_t header;
            size_t length;

            memcpy(&header, copy + at, 4);
            length = pcipt_trace_length(header);
            if (length < 4 || length > 40)
                fail("a record of impossible length");
            if (length > size - at)
                break;
            at += length;
        } else if (!used) {
            break;
        }
    }
    free(copy);
    free(out);
    return at;
}

static void fuzz_trace(uint8_t options, size_t cut, const uint8_t *data, size_t size)
{
    struct output whole = {0}, parted = {0};
    struct pcipt_trace *trace = malloc(sizeof(*trace));
    struct pcipt_ports *ports = malloc(sizeof(*ports));
    size_t done;

    cut = size ? cut % (size + 1) : 0;
    pcipt_ports_init(ports, PCIPT_OPT_PER_VCPU | (options & PCIPT_OPT_READS));
    pcipt_trace_init(trace, 0, 0xb0000000, 0xc0000000);
    run_trace(trace, ports, data, size, &whole);
    pcipt_ports_init(ports, PCIPT_OPT_PER_VCPU | (options & PCIPT_OPT_READS));
    pcipt_trace_init(trace, 0, 0xb0000000, 0xc0000000);
    done = run_trace(trace, ports, data, cut, &parted);
    run_trace(trace, ports, data + done, size - done, &parted);
    compare(&whole, &parted);
    free(ports);
    free(trace);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint16_t cut;

    if (size < 4)
        return 0;
    memcpy(&cut, data + 2, sizeof(cut));
    (data[0] & 1 ? fuzz_trace : fuzz_ports)(data[1], cut, data + 4, size - 4);
    return 0;
}

#ifdef FILE_DRIVER
static uint64_t state;

static uint32_t pick(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

/* Bytes that come near to what the decoders look for: records of both kinds with a few of their bits wrong. */
static size_t invent(uint8_t *data, size_t room)
{
    static const uint32_t headers[] = {0x20082216, 0x20082217, 0x30082316, 0x2001f003, 0x4001f001, 0x90021101, 0x20082016};
    size_t size = 4, wanted = 4 + pick((uint32_t)room - 4);
    uint32_t i, word;

    for (i = 0; i < 4; i++)
        data[i] = (uint8_t)pick(256);
    while (size + 40 <= wanted) {
        if (data[0] & 1) {
            word = headers[pick(7)] ^ (pick(8) ? 0 : 1u << pick(32));
            memcpy(data + size, &word, 4);
            size += 4;
            for (i = pcipt_trace_length(word) - 4; i && size + 4 <= room; i -= 4, size += 4) {
                word = pick(3) ? 0xcf8 + 4 * pick(2) : pick(2) ? 0x80000000u | pick(1 << 24) : pick(4);
                memcpy(data + size, &word, 4);
            }
        } else {
            struct pcipt_access access = {.n = size, .address = 0xcf6 + pick(12), .value = pick(2) ? 0x80000000u | pick(1 << 24) : pick(9)};

            access.vcpu = (uint16_t)(pick(4) ? pick(2) : pick(65536));
            access.size = (uint8_t)(1 << pick(3));
            access.flags = (uint8_t)pick(4);
            if (!pick(4))
                access.address = 0xb0000000 - 8 + pick(1 << 24);
            if (!pick(16))
                access.size = (uint8_t)pick(256);
            if (!pick(16))
                access.flags = (uint8_t)pick(256);
            memcpy(data + size, &access, sizeof(access));
            size += sizeof(access);
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t data[1 << 16];
    int i;

    if (argc == 4 && !strcmp(argv[1], "-r")) {
        state = strtoull(argv[2], NULL, 0);
        for (i = atoi(argv[3]); i > 0; i--) {
            size_t size = invent(data, 4096);

            LLVMFuzzerTestOneInput(data, size);
        }
        return 0;
    }
    for (i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");

        if (!file)
            fail("cannot open an input");
        LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof(data), file));
        fclose(file);
    }
    return 0;
}
#endif
