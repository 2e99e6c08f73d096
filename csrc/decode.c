/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "decode.h"

#include <errno.h>
#include <string.h>

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define ENABLE 0x80000000u
#define BUS_SIZE 0x100000u /* ECAM: 256 functions of 4 KiB */

void pcipt_ports_init(struct pcipt_ports *ports, uint32_t options)
{
    memset(ports, 0, sizeof(*ports));
    ports->options = options;
}

int pcipt_ports_region(struct pcipt_ports *ports, uint64_t base, uint16_t segment, uint8_t start_bus, uint8_t end_bus)
{
    struct pcipt_region *region;

    if (start_bus > end_bus || base % BUS_SIZE || base > UINT64_MAX - 256ull * BUS_SIZE)
        return -EINVAL;
    if (ports->regions >= PCIPT_REGIONS)
        return -ENOSPC;
    region = &ports->region[ports->regions++];
    region->base = base;
    region->segment = segment;
    region->start_bus = start_bus;
    region->end_bus = end_bus;
    region->reserved = 0;
    return 0;
}

/* NULL: a vCPU beyond the table, whose address writes are not remembered. */
static inline struct pcipt_latch *latch_of(struct pcipt_ports *ports, uint16_t vcpu)
{
    if (!(ports->options & PCIPT_OPT_PER_VCPU))
        return &ports->latch[0];
    return vcpu < PCIPT_LATCHES ? &ports->latch[vcpu] : NULL;
}

void pcipt_ports_forget(struct pcipt_ports *ports, uint16_t vcpu)
{
    size_t i;

    if ((ports->options & PCIPT_OPT_PER_VCPU) && vcpu < PCIPT_LATCHES) {
        ports->latch[vcpu].known = 0;
        return;
    }
    for (i = 0; i < PCIPT_LATCHES; i++)
        ports->latch[i].known = 0;
}

static inline void write_address(struct pcipt_ports *ports, const struct pcipt_access *access)
{
    struct pcipt_latch *latch = latch_of(ports, access->vcpu);

    if (!latch || access->address != CONFIG_ADDRESS)
        return;
    if (access->size == 4) {
        latch->address = access->value;
        latch->known = 1;
    } else if (access->size == 0) {
        /* Only 4 bytes can hold the enable bit; without it, this may have been a byte that changes nothing. */
        latch->address = access->value;
        latch->known = (access->value & ENABLE) != 0;
    }
}

static inline uint32_t low_bytes(uint32_t value, uint32_t size)
{
    return size == 4 ? value : value & ((1u << 8 * size) - 1);
}

/* Append one part of an access: `lane` is its first byte within the access. */
static inline void put(struct pcipt_config *out, const struct pcipt_access *access, uint16_t segment, uint32_t function,
                       uint32_t offset, uint32_t size, uint32_t lane)
{
    out->n = access->n;
    out->value = size ? low_bytes(access->value >> 8 * lane, size) : access->value;
    out->segment = segment;
    out->bus = (uint8_t)(function >> 8);
    out->devfn = (uint8_t)function;
    out->offset = (uint16_t)offset;
    out->vcpu = access->vcpu;
    out->size = (uint8_t)size;
    out->flags = access->flags;
    out->reserved = 0;
}

/*
 * Cut an access at 32-bit registers, as the bus does; three bytes of one register become two and one, as in Xen.
 * An access by port ends with its register: what lies beyond 0xcff is another port's.
 */
static inline size_t put_parts(struct pcipt_config *out, const struct pcipt_access *access, uint16_t segment,
                               uint64_t place, int one_register)
{
    uint32_t left = access->size, lane = 0;
    size_t parts = 0;

    if ((place & 3) + left <= 4) { /* nearly always, and where the width is unknown */
        put(out, access, segment, (uint32_t)(place >> 12), place & 0xfff, left, 0);
        return 1;
    }
    do {
        uint32_t room = 4 - (place & 3), size = left < room ? left : room;

        if (size == 3)
            size = 2;
        put(&out[parts++], access, segment, (uint32_t)(place >> 12), place & 0xfff, size, lane);
        place += size;
        lane += size;
        left -= size;
    } while (left && (!one_register || (place & 3)));
    return parts;
}

static inline size_t decode_data(struct pcipt_ports *ports, const struct pcipt_access *access, struct pcipt_config *out)
{
    const struct pcipt_latch *latch = latch_of(ports, access->vcpu);
    uint64_t place;

    if (!latch || !latch->known) {
        ports->unknown++;
        return 0;
    }
    if (!(latch->address & ENABLE))
        return 0;
    place = (uint64_t)(latch->address & 0x00ffff00) << 4 | (latch->address & 0xfc) | (access->address & 3);
    if (ports->options & PCIPT_OPT_AMD)
        place |= (latch->address & 0x0f000000) >> 16;
    return put_parts(out, access, 0, place, 1);
}

static size_t decode_ecam(struct pcipt_ports *ports, const struct pcipt_access *access, struct pcipt_config *out)
{
    const struct pcipt_region *region = ports->region;
    uint32_t i;

    if (!ports->regions && (ports->options & PCIPT_OPT_GUESS_ECAM)) {
        uint64_t base = access->address & ~(uint64_t)(256 * BUS_SIZE - 1);

        (void)pcipt_ports_region(ports, base, 0, 0, 255);
    }
    for (i = 0; i < ports->regions; i++, region++) {
        uint64_t place = access->address - region->base;

        if (access->address < region->base || place >> 20 < region->start_bus || place >> 20 > region->end_bus)
            continue;
        /* Nothing says what follows the last byte of the region. */
        return put_parts(out, access, region->segment, place, (place & 0xfff) > 0xffc);
    }
    ports->outside++;
    return 0;
}

/* Sizes 0, 1, 2, 4: bits 0, 1, 2, 4. */
static inline int size_possible(uint32_t size)
{
    return size <= 4 && (0x17u >> size & 1);
}

/* Everything but an access: a gap, or a record that cannot be (-EBADMSG). */
static int decode_gap(struct pcipt_ports *ports, const struct pcipt_access *access, struct pcipt_config *out)
{
    if (access->flags != PCIPT_LOST)
        return -EBADMSG;
    pcipt_ports_forget(ports, access->vcpu);
    put(out, access, 0, 0, 0, 0, 0);
    return 1;
}

int pcipt_ports_decode(struct pcipt_ports *ports, const struct pcipt_access *records, size_t count,
                       struct pcipt_config *out, size_t room, size_t *consumed, size_t *produced)
{
    /* An access that lacks these flags has no effect: reads, unless they are wanted. */
    const uint32_t needed = ports->options & PCIPT_OPT_READS ? 0 : PCIPT_WRITE;
    struct pcipt_latch *const shared = &ports->latch[0];
    const uint32_t latching = ports->options & PCIPT_OPT_PER_VCPU ? UINT32_MAX : 4 | PCIPT_WRITE << 8;
    const uint32_t unwanted = 4; /* a read by port has no flag, its kind is its size */
    size_t used = 0, made = 0;
    int result = 0;

    for (; used < count && room - made >= PCIPT_PARTS; used++) {
        const struct pcipt_access *access = &records[used];
        const uint32_t flags = access->flags, kind = access->size | flags << 8;
        const uint64_t port = access->address - CONFIG_ADDRESS;

        /* The two that come most, first: an address is latched, a read is not wanted. */
        if (kind == latching && port == 0) {
            shared->address = access->value;
            shared->known = 1;
            continue;
        }
        if (kind <= unwanted && needed && size_possible(kind))
            continue;
        if ((flags & ~(uint32_t)(PCIPT_WRITE | PCIPT_ECAM)) || !size_possible(access->size)) {
            result = decode_gap(ports, access, &out[made]);
            if (result < 0)
                break;
            result = 0;
            made++;
            continue;
        }
        if (flags & PCIPT_ECAM) {
            if ((flags & needed) == needed)
                made += decode_ecam(ports, access, &out[made]);
            continue;
        }
        if ((flags & needed) != needed || port >= 8)
            continue;
        if (port >= 4)
            made += decode_data(ports, access, &out[made]);
        else if (flags & PCIPT_WRITE)
            write_address(ports, access);
    }
    *consumed = used;
    *produced = made;
    return result;
}

/* Xen public/trace.h: the class of an event is one bit of 27:16, its subclass is in 15:12. */
#define EVENT_MASK 0x0fffffffu
#define CLASS_MASK 0x0fff0000u
#define LOST_RECORDS 0x0001f001
#define CPU_CHANGE 0x0001f003
#define RUNSTATE_CHANGE 0x00021001 /* | old << 8 | new << 4; 0 is running */
#define RUNSTATE_MASK 0x0ffff0f1
#define IO_ACCESS 0x00082016 /* | 1: memory, | 0x100: 64 bits, | 0x200: write */
#define IO_MASK 0x0ffffcfe
#define IO_MEMORY 0x001
#define IO_64 0x100
#define IO_WRITE 0x200

void pcipt_trace_init(struct pcipt_trace *trace, uint32_t domain, uint64_t mmio_start, uint64_t mmio_end)
{
    memset(trace, 0, sizeof(*trace));
    memset(trace->cpus, 0xff, sizeof(trace->cpus));
    trace->domain = domain;
    trace->mmio_start = mmio_start;
    trace->mmio_end = mmio_end;
}

size_t pcipt_trace_length(uint32_t header)
{
    return 4 + 8 * (size_t)(header >> 31) + 4 * (size_t)(header >> 28 & 7);
}

static inline uint32_t word_at(const uint8_t *bytes, size_t index)
{
    uint32_t word;

    memcpy(&word, bytes + 4 * index, sizeof(word));
    return word;
}

static inline uint16_t trace_cpu(const struct pcipt_trace *trace)
{
    return trace->cpu < PCIPT_LATCHES ? (uint16_t)trace->cpu : PCIPT_NO_VCPU;
}

static size_t put_access(const struct pcipt_trace *trace, struct pcipt_access *out, uint64_t address, uint32_t value,
                         uint8_t flags)
{
    out->n = trace->records;
    out->address = address;
    out->value = value;
    out->vcpu = trace_cpu(trace);
    out->size = 0;
    out->flags = flags;
    return 1;
}

/*
 * When another vCPU of the domain comes to this CPU, a latched address belongs to one that has left. It is spoilt
 * by a write of unknown width that lacks the enable bit.
 */
static size_t change_runstate(struct pcipt_trace *trace, uint32_t who, struct pcipt_access *out)
{
    struct pcipt_trace_cpu *cpu;
    uint32_t before;

    if (trace->cpu >= PCIPT_LATCHES)
        return 0;
    cpu = &trace->cpus[trace->cpu];
    cpu->running = who;
    if (who >> 16 != trace->domain || who == cpu->last)
        return 0;
    before = cpu->last;
    cpu->last = who;
    return before == PCIPT_NO_DOMAIN ? 0 : put_access(trace, out, CONFIG_ADDRESS, 0, PCIPT_WRITE);
}

static size_t change_cpu(struct pcipt_trace *trace, const uint8_t *data)
{
    trace->cpu = word_at(data, 0);
    return 0;
}

/* -1: the record has not as many words as its kind must have. */
static int put_io(struct pcipt_trace *trace, uint32_t event, const uint8_t *data, uint32_t words,
                  struct pcipt_access *out)
{
    const uint32_t head = event & IO_64 ? 2 : 1;
    uint64_t address;
    uint8_t flags = event & IO_WRITE ? PCIPT_WRITE : 0;

    if (words < head || words > 2 * head)
        return -1;
    address = word_at(data, 0);
    if (event & IO_64)
        address |= (uint64_t)word_at(data, 1) << 32;
    if (event & IO_MEMORY) {
        if (address < trace->mmio_start || address >= trace->mmio_end)
            return 0;
        flags |= PCIPT_ECAM;
    } else if ((address & ~7ull) != CONFIG_ADDRESS) {
        return 0;
    }
    if (trace->cpu < PCIPT_LATCHES) {
        uint32_t running = trace->cpus[trace->cpu].running;

        if (running != PCIPT_NO_DOMAIN && running >> 16 != trace->domain) {
            trace->foreign++;
            return 0;
        }
    }
    /* Without data (a string instruction from memory) nobody knows what was written. */
    if (words == head)
        return flags & PCIPT_WRITE ? (int)put_access(trace, out, 0, 1, PCIPT_LOST) : 0;
    return (int)put_access(trace, out, address, word_at(data, head), flags);
}

int pcipt_trace_decode(struct pcipt_trace *trace, const uint8_t *bytes, size_t length, struct pcipt_access *out,
                       size_t room, size_t *consumed, size_t *produced)
{
    size_t at = 0, made = 0;
    int result = 0;

    while (length - at >= 4 && made < room) {
        const uint32_t header = word_at(bytes + at, 0), event = header & EVENT_MASK, class = event & CLASS_MASK;
        const uint32_t words = header >> 28 & 7;
        const size_t size = pcipt_trace_length(header);
        const uint8_t *data = bytes + at + size - 4 * words;
        int parts = 0;

        if (class == 0 || (class & (class - 1))) {
            result = -EBADMSG;
            break;
        }
        if (size > length - at)
            break;
        trace->records++;
        if ((event & IO_MASK) == IO_ACCESS)
            parts = put_io(trace, event, data, words, &out[made]);
        else if ((event & RUNSTATE_MASK) == RUNSTATE_CHANGE)
            parts = words ? (int)change_runstate(trace, word_at(data, 0), &out[made]) : -1;
        else if (event == CPU_CHANGE)
            parts = words == 2 ? (int)change_cpu(trace, data) : -1;
        else if (event == LOST_RECORDS)
            parts = words ? (int)put_access(trace, &out[made], 0, word_at(data, 0), PCIPT_LOST) : -1;
        if (parts < 0) {
            trace->records--;
            result = -EBADMSG;
            break;
        }
        made += (size_t)parts;
        at += size;
    }
    *consumed = at;
    *produced = made;
    return result;
}
