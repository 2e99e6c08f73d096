/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decoders of configuration accesses: port pairs 0xcf8/0xcfc and ECAM, and Xen's trace records.
 *
 * Pure C: nothing is allocated, opened or logged, there is no global state. The caller owns every buffer and every
 * state structure (initialise it with the _init function; copy it freely); two threads need two states. A stream may
 * be cut anywhere: what was not consumed is given again, in front of the bytes that follow.
 *
 * All functions return 0, or -EBADMSG: the record at *consumed is damaged. It was not consumed; the caller skips it.
 */
#ifndef PCIPT_DECODE_H
#define PCIPT_DECODE_H

#include <stddef.h>
#include <stdint.h>

/* Flags of both kinds of record. */
#define PCIPT_WRITE 0x01 /* else a read */
#define PCIPT_ECAM 0x02  /* `address` is physical, else a port */
#define PCIPT_LOST 0x80  /* no access: `value` records were lost here; 0 is an unknown number */

#define PCIPT_NO_VCPU 0xffff
#define PCIPT_LATCHES 1024
#define PCIPT_REGIONS 16
#define PCIPT_PARTS 3 /* one access becomes at most this many configuration accesses */

/* What the processor did: the record of *.ports.bin (docs/ports-bin.md), little endian. */
struct pcipt_access {
    uint64_t n; /* the recording's own number */
    uint64_t address;
    uint32_t value; /* of a read: what it returned */
    uint16_t vcpu;
    uint8_t size; /* 1, 2, 4; 0 is unknown (Xen's trace records do not tell) */
    uint8_t flags;
};

/* What it meant: an access to a register of a function. Parts are naturally bounded by their 32-bit register. */
struct pcipt_config {
    uint64_t n;
    uint32_t value;
    uint16_t segment;
    uint8_t bus;
    uint8_t devfn;
    uint16_t offset;
    uint16_t vcpu;
    uint8_t size;
    uint8_t flags;
    uint16_t reserved;
};

_Static_assert(sizeof(struct pcipt_access) == 24, "record of *.ports.bin");
_Static_assert(offsetof(struct pcipt_access, value) == 16 && offsetof(struct pcipt_access, flags) == 23, "layout");
_Static_assert(sizeof(struct pcipt_config) == 24, "batches are unpacked by Python");
_Static_assert(offsetof(struct pcipt_config, segment) == 12 && offsetof(struct pcipt_config, size) == 20, "layout");

/* One entry of MCFG: `base` is the address of bus 0 of the segment, also where start_bus is not 0. */
struct pcipt_region {
    uint64_t base;
    uint16_t segment;
    uint8_t start_bus;
    uint8_t end_bus;
    uint32_t reserved;
};

struct pcipt_latch {
    uint32_t address;
    uint32_t known;
};

#define PCIPT_OPT_PER_VCPU 0x1   /* one latch per vCPU instead of one per domain */
#define PCIPT_OPT_AMD 0x2        /* CONFIG_ADDRESS bits 27:24 are register bits 11:8 */
#define PCIPT_OPT_READS 0x4      /* report reads as well as writes */
#define PCIPT_OPT_GUESS_ECAM 0x8 /* no region given: the first ECAM access tells it (256 buses, aligned) */

struct pcipt_ports {
    uint32_t options;
    uint32_t regions;
    struct pcipt_region region[PCIPT_REGIONS];
    uint64_t unknown; /* data accesses without a known CONFIG_ADDRESS */
    uint64_t outside; /* ECAM accesses outside of all regions */
    struct pcipt_latch latch[PCIPT_LATCHES];
};

void pcipt_ports_init(struct pcipt_ports *ports, uint32_t options);

/* Add an ECAM region. -EINVAL: the buses or the base are impossible; -ENOSPC: there are PCIPT_REGIONS already. */
int pcipt_ports_region(struct pcipt_ports *ports, uint64_t base, uint16_t segment, uint8_t start_bus, uint8_t end_bus);

/* Forget CONFIG_ADDRESS, as after a loss; a data access is unknown until it is written again. */
void pcipt_ports_forget(struct pcipt_ports *ports, uint16_t vcpu);

/*
 * Decode `count` records. Stops early when fewer than PCIPT_PARTS places are left of `room`: then call again.
 * *consumed counts records, *produced counts entries of `out`.
 */
int pcipt_ports_decode(struct pcipt_ports *ports, const struct pcipt_access *records, size_t count,
                       struct pcipt_config *out, size_t room, size_t *consumed, size_t *produced);

/*
 * Xen's trace records, from a file of xentrace or a raw buffer: `hdr = event:28 | extra words:3 | has TSC:1`.
 * The access size is not in them, nor the domain: that is known where scheduling records are in the trace as well.
 */
#define PCIPT_NO_DOMAIN 0xffffffffu

struct pcipt_trace_cpu {
    uint32_t running; /* vCPU in bits 15:0, domain in 31:16; PCIPT_NO_DOMAIN is unknown */
    uint32_t last;    /* the watched domain's vCPU that ran here last, same form */
};

struct pcipt_trace {
    uint64_t records; /* seen so far; the number of the last one */
    uint64_t foreign; /* accesses of other domains, not reported */
    uint64_t mmio_start, mmio_end; /* memory accesses in [start, end) are ECAM; others are not reported */
    uint32_t domain;               /* whose accesses are wanted, where the trace tells */
    uint32_t cpu;
    struct pcipt_trace_cpu cpus[PCIPT_LATCHES];
};

void pcipt_trace_init(struct pcipt_trace *trace, uint32_t domain, uint64_t mmio_start, uint64_t mmio_end);

/*
 * Pick the configuration accesses out of `length` bytes of trace, as records for pcipt_ports_decode with the
 * physical CPU in `vcpu` (a trace is ordered by CPU only). *consumed counts bytes and ends before a record that is
 * not complete. A record that cannot be (no known class, wrong length) is damaged; its length is pcipt_trace_length.
 */
int pcipt_trace_decode(struct pcipt_trace *trace, const uint8_t *bytes, size_t length, struct pcipt_access *out,
                       size_t room, size_t *consumed, size_t *produced);

/* The bytes of a record with this header: 4 to 40. */
size_t pcipt_trace_length(uint32_t header);

#endif
