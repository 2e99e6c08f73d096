/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hypervisor.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pcipt_call {
    void *library;
    struct xencall_handle *xcall;
    pcipt_xencall_close *close;
    pcipt_xencall2 *call2;
    pcipt_xencall_alloc_buffer *alloc_buffer;
    pcipt_xencall_free_buffer *free_buffer;
};

struct pcipt_control {
    void *library;
    struct xc_interface_core *xch;
    pcipt_xc_interface_close *close;
    pcipt_xc_pcitopoinfo *pcitopoinfo;
    pcipt_xc_test_assign_device *test_assign_device;
    pcipt_xc_domain_memory_mapping *memory_mapping;
    pcipt_xc_send_debug_keys *send_debug_keys;
    pcipt_xc_readconsolering *readconsolering;
    pcipt_xc_physinfo *physinfo;
};

struct symbol {
    const char *name;
    void *function; /* address of the function pointer to fill */
};

static void silent_message(struct xentoollog_logger *logger, unsigned int level, int error, const char *context,
                           const char *format, va_list arguments)
{
    (void)logger, (void)level, (void)error, (void)context, (void)format, (void)arguments;
}

static void silent_progress(struct xentoollog_logger *logger, const char *context, const char *doing, int percent,
                            unsigned long done, unsigned long total)
{
    (void)logger, (void)context, (void)doing, (void)percent, (void)done, (void)total;
}

static void silent_destroy(struct xentoollog_logger *logger)
{
    (void)logger;
}

/* Without a logger the libraries print to stderr; they read this one and never write to it. */
static const struct pcipt_logger silence = {silent_message, silent_progress, silent_destroy};

static struct xentoollog_logger *silent(void)
{
    return (struct xentoollog_logger *)(uintptr_t)&silence;
}

/* To be called with nothing between it and the call whose return value it takes. */
static int outcome(int returned)
{
    if (returned >= 0)
        return 0;
    return errno ? -errno : -EIO;
}

static int failure(void)
{
    return errno ? -errno : -EIO;
}

static void explain(struct pcipt_reason *reason)
{
    const char *text = dlerror();

    snprintf(reason->text, sizeof(reason->text), "%s", text ? text : "the dynamic linker gives no reason");
}

/* NODELETE: libxenctrl leaves a thread-local destructor behind, which must not point into unmapped code. */
static int load(const char *name, const struct symbol *symbols, size_t count, struct pcipt_reason *reason,
                void **result)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);

    if (!library) {
        explain(reason);
        return -ELIBACC;
    }
    for (size_t i = 0; i < count; i++) {
        void *function = dlsym(library, symbols[i].name);

        if (!function) {
            explain(reason);
            dlclose(library);
            return -ELIBBAD;
        }
        memcpy(symbols[i].function, &function, sizeof(function));
    }
    *result = library;
    return 0;
}

int pcipt_call_open(const char *library, struct pcipt_reason *reason, struct pcipt_call **result)
{
    pcipt_xencall_open *open = NULL;
    struct pcipt_call *call = calloc(1, sizeof(*call));
    int rc;

    reason->text[0] = '\0';
    if (!call)
        return -ENOMEM;
    const struct symbol symbols[] = {
        {"xencall_open", &open},
        {"xencall_close", &call->close},
        {"xencall2", &call->call2},
        {"xencall_alloc_buffer", &call->alloc_buffer},
        {"xencall_free_buffer", &call->free_buffer},
    };
    rc = load(library, symbols, sizeof(symbols) / sizeof(symbols[0]), reason, &call->library);
    if (rc == 0) {
        errno = 0;
        call->xcall = open(silent(), 0);
        if (call->xcall) {
            *result = call;
            return 0;
        }
        rc = failure();
        dlclose(call->library);
    }
    free(call);
    return rc;
}

void pcipt_call_close(struct pcipt_call *call)
{
    if (!call)
        return;
    call->close(call->xcall);
    dlclose(call->library);
    free(call);
}

/* The argument must lie in memory that Xen can reach: a buffer of libxencall, not ours. */
static int physdev_op(struct pcipt_call *call, uint64_t command, const void *argument, size_t size)
{
    void *buffer;
    int rc;

    errno = 0;
    buffer = call->alloc_buffer(call->xcall, size);
    if (!buffer)
        return errno ? -errno : -ENOMEM;
    memcpy(buffer, argument, size);
    errno = 0;
    rc = outcome(call->call2(call->xcall, PCIPT_HYPERCALL_PHYSDEV_OP, command, (uintptr_t)buffer));
    call->free_buffer(call->xcall, buffer);
    return rc;
}

int pcipt_call_add(struct pcipt_call *call, struct pcipt_device device, uint32_t flags, uint8_t physfn_bus,
                   uint8_t physfn_devfn)
{
    const struct pcipt_device_add add = {
        .segment = device.segment,
        .bus = device.bus,
        .devfn = device.devfn,
        .flags = flags,
        .physfn_bus = flags & PCIPT_FLAG_VIRTUAL ? physfn_bus : 0,
        .physfn_devfn = flags & PCIPT_FLAG_VIRTUAL ? physfn_devfn : 0,
    };

    /* Xen itself rejects no flag, and takes bit 2 for "a proximity domain follows", which we never know. */
    if (flags & ~(PCIPT_FLAG_EXTENDED | PCIPT_FLAG_VIRTUAL))
        return -EINVAL;
    return physdev_op(call, PCIPT_PHYSDEV_DEVICE_ADD, &add, sizeof(add));
}

int pcipt_call_remove(struct pcipt_call *call, struct pcipt_device device)
{
    return physdev_op(call, PCIPT_PHYSDEV_DEVICE_REMOVE, &device, sizeof(device));
}

int pcipt_call_reserved(struct pcipt_call *call, const struct pcipt_device *device, uint32_t *count,
                        struct pcipt_region *regions)
{
    size_t room = (size_t)*count * sizeof(*regions);
    struct pcipt_reserved_map *map;
    int rc;

    errno = 0;
    map = call->alloc_buffer(call->xcall, sizeof(*map) + room);
    if (!map)
        return errno ? -errno : -ENOMEM;
    memset(map, 0, sizeof(*map) + room);
    map->flags = device ? 0 : PCIPT_RESERVED_ALL;
    map->count = *count;
    map->regions = (struct pcipt_region *)(map + 1);
    if (device)
        map->device = *device;
    errno = 0;
    rc = outcome(call->call2(call->xcall, PCIPT_HYPERCALL_MEMORY_OP, PCIPT_MEMORY_RESERVED_MAP, (uintptr_t)map));
    if (rc == 0 && map->count > *count)
        rc = -EOVERFLOW;
    if (rc == 0)
        memcpy(regions, map + 1, map->count * sizeof(*regions));
    if (rc == 0 || rc == -ENOBUFS)
        *count = map->count;
    call->free_buffer(call->xcall, map);
    return rc;
}

int pcipt_call_command_line(struct pcipt_call *call, char *text)
{
    char *line;
    int rc;

    errno = 0;
    line = call->alloc_buffer(call->xcall, PCIPT_COMMAND_LINE_SIZE);
    if (!line)
        return errno ? -errno : -ENOMEM;
    memset(line, 0, PCIPT_COMMAND_LINE_SIZE);
    errno = 0;
    rc = outcome(
        call->call2(call->xcall, PCIPT_HYPERCALL_XEN_VERSION, PCIPT_VERSION_COMMAND_LINE, (uintptr_t)line));
    if (rc == 0) {
        memcpy(text, line, PCIPT_COMMAND_LINE_SIZE);
        text[PCIPT_COMMAND_LINE_SIZE - 1] = '\0';
    }
    call->free_buffer(call->xcall, line);
    return rc;
}

int pcipt_control_open(const char *library, struct pcipt_reason *reason, struct pcipt_control **result)
{
    pcipt_xc_interface_open *open = NULL;
    struct pcipt_control *control = calloc(1, sizeof(*control));
    int rc;

    reason->text[0] = '\0';
    if (!control)
        return -ENOMEM;
    const struct symbol symbols[] = {
        {"xc_interface_open", &open},
        {"xc_interface_close", &control->close},
        {"xc_pcitopoinfo", &control->pcitopoinfo},
        {"xc_test_assign_device", &control->test_assign_device},
        {"xc_domain_memory_mapping", &control->memory_mapping},
        {"xc_send_debug_keys", &control->send_debug_keys},
        {"xc_readconsolering", &control->readconsolering},
        {"xc_physinfo", &control->physinfo},
    };
    rc = load(library, symbols, sizeof(symbols) / sizeof(symbols[0]), reason, &control->library);
    if (rc == 0) {
        errno = 0;
        control->xch = open(silent(), silent(), 0);
        if (control->xch) {
            *result = control;
            return 0;
        }
        rc = failure();
        dlclose(control->library);
    }
    free(control);
    return rc;
}

void pcipt_control_close(struct pcipt_control *control)
{
    if (!control)
        return;
    control->close(control->xch);
    dlclose(control->library);
    free(control);
}

int pcipt_control_nodes(struct pcipt_control *control, uint32_t count, const struct pcipt_device *devices,
                        uint32_t *nodes)
{
    if (count == 0)
        return 0;
    errno = 0;
    /* The devices are only read: libxc copies them into a buffer of its own. */
    return outcome(
        control->pcitopoinfo(control->xch, count, (struct physdev_pci_device *)(uintptr_t)devices, nodes));
}

int pcipt_control_test(struct pcipt_control *control, struct pcipt_device device)
{
    uint32_t sbdf = (uint32_t)device.segment << 16 | (uint32_t)device.bus << 8 | device.devfn;

    errno = 0;
    return outcome(control->test_assign_device(control->xch, PCIPT_DOMAIN_INVALID, sbdf));
}

static int memory_mapping(struct pcipt_control *control, uint64_t first, uint64_t count, uint32_t add)
{
    errno = 0;
    return outcome(control->memory_mapping(control->xch, PCIPT_DOMAIN_HARDWARE, first, first, count, add));
}

int pcipt_control_map(struct pcipt_control *control, uint64_t first, uint64_t count)
{
    return memory_mapping(control, first, count, PCIPT_MAPPING_ADD);
}

int pcipt_control_unmap(struct pcipt_control *control, uint64_t first, uint64_t count)
{
    return memory_mapping(control, first, count, PCIPT_MAPPING_REMOVE);
}

int pcipt_control_press(struct pcipt_control *control, char key)
{
    const char keys[2] = {key, '\0'};

    /* Among the other keys are those that reboot, crash or reconfigure the host. */
    if (key != 'Q' && key != 'q')
        return -EPERM;
    errno = 0;
    return outcome(control->send_debug_keys(control->xch, keys));
}

int pcipt_control_read(struct pcipt_control *control, uint32_t size, char *buffer, uint32_t *index, uint32_t *count)
{
    unsigned int read = size;
    int rc;

    *count = 0;
    if (size == 0)
        return 0;
    errno = 0;
    rc = outcome(control->readconsolering(control->xch, buffer, &read, 0, 1, index));
    if (rc == 0)
        *count = read < size ? read : size;
    return rc;
}

int pcipt_control_capabilities(struct pcipt_control *control, uint32_t *capabilities)
{
    struct pcipt_physinfo info;
    int rc;

    memset(&info, 0, sizeof(info));
    errno = 0;
    rc = outcome(control->physinfo(control->xch, (struct xen_sysctl_physinfo *)(void *)&info));
    *capabilities = rc == 0 ? info.capabilities : 0;
    return rc;
}
