/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A libxencall that records what arrives and answers what `fake_call` says. */
#include "fakes.h"
#include "hypervisor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct fake_call fake_call;
static int handle;

static int answer(int32_t fault)
{
    if (!fault)
        return 0;
    errno = fault > 0 ? fault : 0;
    return -1;
}

/* Speak through the logger as the real library does when something fails. */
static void speak(struct xentoollog_logger *logger, ...)
{
    const struct pcipt_logger *functions = (const struct pcipt_logger *)(const void *)logger;
    va_list arguments;

    va_start(arguments, logger);
    functions->message(logger, 8, EIO, "xencall", "it failed", arguments);
    va_end(arguments);
    functions->progress(logger, "xencall", "failing", 50, 1, 2);
    fake_call.logger_spoke++;
}

struct xencall_handle *xencall_open(struct xentoollog_logger *logger, unsigned int flags)
{
    (void)flags;
    speak(logger);
    if (answer(fake_call.fail_open))
        return NULL;
    fake_call.opened++;
    return (struct xencall_handle *)(void *)&handle;
}

int xencall_close(struct xencall_handle *xcall)
{
    fake_call.closed += (void *)xcall == &handle;
    errno = EBADF; /* what it leaves behind must not reach the caller */
    return -1;
}

/* As XENMEM_reserved_device_memory_map does it: what fits is copied, the number there is always told. */
static int list_regions(struct pcipt_reserved_map *map)
{
    uint32_t room = map->count, there = fake_call.regions;

    for (uint32_t i = 0; i < there && i < room; i++)
        map->regions[i] = (struct pcipt_region){0x7fff0 + 16 * i, i + 1};
    map->count = there;
    fake_call.regions += fake_call.grows;
    return answer(there > room ? ENOBUFS : 0);
}

int xencall2(struct xencall_handle *xcall, unsigned int op, uint64_t arg1, uint64_t arg2)
{
    fake_call.calls += (void *)xcall == &handle;
    fake_call.op = op;
    fake_call.command = arg1;
    memset(fake_call.bytes, 0xee, sizeof(fake_call.bytes));
    memcpy(fake_call.bytes, (const void *)(uintptr_t)arg2,
           fake_call.size < sizeof(fake_call.bytes) ? (size_t)fake_call.size : sizeof(fake_call.bytes));
    if (op == 17 && !fake_call.fail_call)
        memcpy((void *)(uintptr_t)arg2, fake_call.command_line, sizeof(fake_call.command_line));
    if (fake_call.fail_call || op != 12)
        return answer(fake_call.fail_call);
    return list_regions((struct pcipt_reserved_map *)(uintptr_t)arg2);
}

void *xencall_alloc_buffer(struct xencall_handle *xcall, size_t size)
{
    (void)xcall;
    if (answer(fake_call.fail_alloc))
        return NULL;
    fake_call.allocated++;
    fake_call.size = size;
    return malloc(size);
}

void xencall_free_buffer(struct xencall_handle *xcall, void *buffer)
{
    (void)xcall;
    fake_call.freed++;
    free(buffer);
    errno = EBADF;
}
