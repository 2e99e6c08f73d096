/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A libxenctrl that records what arrives and answers what `fake_control` says; its ring works like Xen's. */
#include "fakes.h"
#include "hypervisor.h"

#include <errno.h>
#include <string.h>

struct fake_control fake_control;
static int handle;

static int answer(void)
{
    if (!fake_control.fail)
        return 0;
    errno = fake_control.fail > 0 ? fake_control.fail : 0;
    return -1;
}

struct xc_interface_core *xc_interface_open(struct xentoollog_logger *logger,
                                            struct xentoollog_logger *dombuild_logger, unsigned int flags)
{
    if (!logger || !dombuild_logger || flags)
        return NULL;
    if (fake_control.fail_open) {
        errno = fake_control.fail_open;
        return NULL;
    }
    fake_control.opened++;
    return (struct xc_interface_core *)(void *)&handle;
}

int xc_interface_close(struct xc_interface_core *xch)
{
    fake_control.closed += (void *)xch == &handle;
    return 0;
}

int xc_pcitopoinfo(struct xc_interface_core *xch, unsigned int count, struct physdev_pci_device *devices,
                   uint32_t *nodes)
{
    const unsigned char *bytes = (const unsigned char *)devices;

    fake_control.nodes_calls += (void *)xch == &handle;
    fake_control.count = count;
    memset(fake_control.devices, 0xee, sizeof(fake_control.devices));
    memcpy(fake_control.devices, bytes, (count < 16 ? count : 16) * sizeof(uint32_t));
    if (answer())
        return -1;
    /* Xen knows the functions 0 and 1 of every device. */
    for (unsigned int i = 0; i < count; i++)
        nodes[i] = (bytes[4 * i + 3] & 7) == 0   ? fake_control.first_node
                   : (bytes[4 * i + 3] & 7) == 1 ? PCIPT_NODE_NONE
                                                 : PCIPT_NODE_UNKNOWN;
    return 0;
}

int xc_test_assign_device(struct xc_interface_core *xch, uint32_t domain, uint32_t sbdf)
{
    (void)xch;
    fake_control.domain = domain;
    fake_control.sbdf = sbdf;
    return answer();
}

int xc_domain_memory_mapping(struct xc_interface_core *xch, uint32_t domain, unsigned long first_gfn,
                             unsigned long first_mfn, unsigned long count, uint32_t add)
{
    (void)xch;
    fake_control.mappings++;
    fake_control.mapping_domain = domain;
    fake_control.first_gfn = first_gfn;
    fake_control.first_mfn = first_mfn;
    fake_control.frames = count;
    fake_control.mapping_add = add;
    if (fake_control.interrupted) {
        fake_control.interrupted--;
        errno = EINTR;
        return -1;
    }
    return answer();
}

int xc_send_debug_keys(struct xc_interface_core *xch, const char *keys)
{
    (void)xch;
    fake_control.key = strlen(keys) == 1 ? keys[0] : '!';
    fake_control.presses++;
    if (answer())
        return -1;
    for (uint32_t i = 0; i < fake_control.dump_size; i++)
        fake_control.ring[fake_control.end++ % FAKE_RING] = fake_control.dump[i];
    fake_control.oldest += fake_control.forgets;
    return 0;
}

int xc_readconsolering(struct xc_interface_core *xch, char *buffer, unsigned int *count, int clear, int incremental,
                       uint32_t *index)
{
    uint32_t at = fake_control.oldest, done = 0;

    (void)xch;
    fake_control.reads++;
    fake_control.clears += clear != 0;
    if (answer())
        return -1;
    /* As read_console_ring does it: the index counts if it lies in the ring. */
    if (incremental && *index - fake_control.oldest <= fake_control.end - fake_control.oldest)
        at = *index;
    while (at != fake_control.end && done < *count)
        buffer[done++] = fake_control.ring[at++ % FAKE_RING];
    *count = done;
    *index = at;
    return 0;
}

int xc_physinfo(struct xc_interface_core *xch, struct xen_sysctl_physinfo *info)
{
    uint32_t words[30]; /* Xen's 120 bytes */

    (void)xch;
    if (answer())
        return -1;
    memset(words, 0xa5, sizeof(words));
    words[7] = fake_control.capabilities;
    memcpy(info, words, sizeof(words));
    return 0;
}
