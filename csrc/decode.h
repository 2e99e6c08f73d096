/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decoders of configuration accesses: port pairs 0xcf8/0xcfc and ECAM, and Xen's trace records.
 *
 * Pure C: nothing is allocated, opened or logged, and there is no global state. The caller owns every buffer and every
 * state structure. A state structure is initialised with its _init function and may be copied; two threads need two
 * of them. A stream may be cut anywhere: the caller passes the bytes that were not consumed again, in front of the
 * bytes that follow.
 *
 * The functions that return an int return 0 on success. The decoders return -EBADMSG if the record at *consumed is
 * damaged; the record was not consumed, the caller must skip it.
 */
#ifndef PCIPT_DECODE_H
#define PCIPT_DECODE_H

#include <stddef.h>
#include <stdint.h>

/* Flags of struct pcipt_access and struct pcipt_config. */
#define PCIPT_WRITE 0x01 /* a write; without it a read */
#define PCIPT_ECAM 0x02  /* `address` is a physical address; without it a port */
#define PCIPT_LOST 0x80  /* not an access: `value` records were lost here; 0 if nobody knows how many */

#define PCIPT_NO_VCPU 0xffff
#define PCIPT_LATCHES 1024
#define PCIPT_REGIONS 16
#define PCIPT_PARTS 3 /* one access becomes at most this many configuration accesses */

/* An access of the processor to a port or to memory: the record of *.ports.bin (docs/ports-bin.md), little endian. */
struct pcipt_access {
    uint64_t n; /* number of the access in the recording */
    uint64_t address;
    uint32_t value; /* the value written, or the value that the read returned */
    uint16_t vcpu;
    uint8_t size; /* 1, 2, 4; 0 is unknown (Xen's trace records do not tell) */
    uint8_t flags;
};

/* An access to a configuration register of a function. It never crosses the end of a 32-bit register. */
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
#define PCIPT_OPT_AMD 0x2        /* CONFIG_ADDRESS bits 27:24 are bits 11:8 of the register offset */
#define PCIPT_OPT_READS 0x4      /* report reads as well as writes */
#define PCIPT_OPT_GUESS_ECAM 0x8 /* without a region, take it from the first ECAM access (256 buses, aligned) */

struct pcipt_ports {
    uint32_t options;
    uint32_t regions;
    struct pcipt_region region[PCIPT_REGIONS];
    uint64_t unknown; /* accesses to the data port whose CONFIG_ADDRESS is not known */
    uint64_t outside; /* accesses to memory outside of all regions */
    struct pcipt_latch latch[PCIPT_LATCHES];
};

void pcipt_ports_init(struct pcipt_ports *ports, uint32_t options);

/* Add an ECAM region. -EINVAL: the buses or the base are not possible; -ENOSPC: there are PCIPT_REGIONS regions. */
int pcipt_ports_region(struct pcipt_ports *ports, uint64_t base, uint16_t segment, uint8_t start_bus, uint8_t end_bus);

/*
 * Forget the CONFIG_ADDRESS of a vCPU, for example after records were lost; PCIPT_NO_VCPU: of all. Without
 * PCIPT_OPT_PER_VCPU it is always that of all. Accesses to the data port are counted as unknown until CONFIG_ADDRESS
 * is written again.
 */
void pcipt_ports_forget(struct pcipt_ports *ports, uint16_t vcpu);

/*
 * Decode `count` records into at most `room` entries of `out`. *consumed is the number of records decoded, *produced
 * the number of entries written. The call ends early if fewer than PCIPT_PARTS entries are free: then call it again.
 */
int pcipt_ports_decode(struct pcipt_ports *ports, const struct pcipt_access *records, size_t count,
                       struct pcipt_config *out, size_t room, size_t *consumed, size_t *produced);

/*
 * Xen's trace records, from a file of xentrace or a raw buffer: `hdr = event:28 | extra words:3 | has TSC:1`.
 * A record has neither the size of the access nor the domain. The domain is known if the trace also has scheduling
 * records.
 */
#define PCIPT_NO_DOMAIN 0xffffffffu

struct pcipt_trace_cpu {
    uint32_t running; /* the vCPU that runs: number in bits 15:0, domain in 31:16; PCIPT_NO_DOMAIN is unknown */
    uint32_t last;    /* the vCPU of the watched domain that ran here last, same form */
};

struct pcipt_trace {
    uint64_t records; /* records so far; also the number of the last record */
    uint64_t foreign; /* accesses of other domains, not reported */
    uint64_t mmio_start, mmio_end; /* memory accesses in [start, end) are ECAM; others are not reported */
    uint32_t domain;               /* report the accesses of this domain, if the trace has the domain */
    uint32_t cpu;
    struct pcipt_trace_cpu cpus[PCIPT_LATCHES];
};

void pcipt_trace_init(struct pcipt_trace *trace, uint32_t domain, uint64_t mmio_start, uint64_t mmio_end);

/*
 * Decode `length` bytes of trace and write the configuration accesses to `out`, as records for pcipt_ports_decode.
 * Their `vcpu` is the physical CPU, because a trace is ordered by CPU only. *consumed is the number of bytes decoded.
 * An incomplete record at the end is not decoded. A record of an unknown class or of a wrong length is damaged; its
 * length is pcipt_trace_length.
 */
int pcipt_trace_decode(struct pcipt_trace *trace, const uint8_t *bytes, size_t length, struct pcipt_access *out,
                       size_t room, size_t *consumed, size_t *produced);

/* Return the length in bytes of a record with this header: 4 to 40. */
size_t pcipt_trace_length(uint32_t header);

#endif
