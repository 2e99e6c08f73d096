/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fake libraries saw last and what they are to answer; each exports one of these as `fake_call` or
 * `fake_control`. The layout is read by ctypes as well: plain types in this order.
 */
#ifndef PCIPT_TESTS_FAKES_H
#define PCIPT_TESTS_FAKES_H

#include <stdint.h>

struct fake_call {
    /* answers */
    int32_t fail_open;  /* errno */
    int32_t fail_alloc; /* errno; -1: fail without one */
    int32_t fail_call;  /* errno; -1: fail without one */
    uint32_t regions;   /* how many reserved regions there are: frames 0x7fff0 + 16 n, n + 1 pages */
    uint32_t grows;     /* by how many at each question */
    char command_line[1024];
    /* what was seen */
    int32_t opened, closed, allocated, freed, calls;
    int32_t logger_spoke; /* the logger was called through, and nothing happened */
    uint32_t op;
    uint64_t command;
    uint64_t size;
    unsigned char bytes[24]; /* the argument, without what follows it */
};

#define FAKE_RING 131072

struct fake_control {
    /* answers */
    int32_t fail_open;
    int32_t fail; /* errno of every call; -1: fail without one */
    int32_t interrupted; /* how many mappings end with EINTR first */
    uint32_t first_node;
    uint32_t capabilities;
    /* Xen's console ring: characters by number, the oldest kept and the end; pressing a key appends `dump`. */
    uint32_t oldest, end;
    char ring[FAKE_RING];
    char dump[FAKE_RING];
    uint32_t dump_size;
    uint32_t forgets; /* how many of the oldest characters are lost when a key is pressed */
    /* what was seen */
    int32_t opened, closed, nodes_calls, presses, reads, clears, mappings;
    uint32_t domain, sbdf, count;
    uint32_t mapping_domain, mapping_add;
    uint64_t first_gfn, first_mfn, frames;
    unsigned char devices[64]; /* the first 16 of the last pcitopoinfo */
    char key;
};

#endif
