/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hypervisor shim: the few calls to Xen that pcipt makes, over libxencall and libxenctrl.
 *
 * No Xen header or library is needed to build: both libraries are opened by name when a handle is opened. tests/csrc
 * compares the declarations here with the libraries' headers if libxen-dev is installed.
 *
 * Only the calls below can be made: no function takes the number of a hypercall, command or domain from its caller.
 *
 * Results:  0, or -errno of the call that failed. -ELIBACC: the library cannot be loaded; -ELIBBAD: the library
 *           lacks a function; both come with a reason.
 * Threads:  only one thread at a time may use a handle; two handles are independent.
 * Fork:     a handle belongs to the process that opened it; in a child only its _close is allowed.
 * Logging:  none; the libraries get a logger that prints nothing.
 */
#ifndef PCIPT_HYPERVISOR_H
#define PCIPT_HYPERVISOR_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers of Xen's ABI. Source: public/xen.h, physdev.h, memory.h, version.h, sysctl.h, domctl.h. */
#define PCIPT_HYPERCALL_MEMORY_OP 12u
#define PCIPT_HYPERCALL_XEN_VERSION 17u
#define PCIPT_HYPERCALL_PHYSDEV_OP 33u
#define PCIPT_PHYSDEV_DEVICE_ADD 25u
#define PCIPT_PHYSDEV_DEVICE_REMOVE 26u
#define PCIPT_FLAG_EXTENDED 0x1u
#define PCIPT_FLAG_VIRTUAL 0x2u
#define PCIPT_MEMORY_RESERVED_MAP 27u
#define PCIPT_RESERVED_ALL 0x1u
#define PCIPT_VERSION_COMMAND_LINE 9u
#define PCIPT_COMMAND_LINE_SIZE 1024 /* xen_commandline_t */
#define PCIPT_MAPPING_REMOVE 0u
#define PCIPT_MAPPING_ADD 1u
#define PCIPT_DOMAIN_HARDWARE 0u
#define PCIPT_DOMAIN_INVALID 0x7ff4u
#define PCIPT_CAPABILITY_HVM 0x1u
#define PCIPT_CAPABILITY_PV 0x2u
#define PCIPT_CAPABILITY_DIRECTIO 0x4u /* an IOMMU is used */
#define PCIPT_NODE_NONE 0xffffffffu    /* Xen lists the function, it has no NUMA node */
#define PCIPT_NODE_UNKNOWN 0xfffffffeu /* Xen does not list the function */

#define PCIPT_REASON_SIZE 256

/* physdev_pci_device: the argument of remove, and an element of pcitopoinfo's list. */
struct pcipt_device {
    uint16_t segment;
    uint8_t bus;
    uint8_t devfn;
};
_Static_assert(sizeof(struct pcipt_device) == 4, "physdev_pci_device has 4 bytes");
_Static_assert(offsetof(struct pcipt_device, bus) == 2, "bus follows the 16-bit segment");
_Static_assert(offsetof(struct pcipt_device, devfn) == 3, "devfn follows bus");

/* physdev_pci_device_add with one element of its optional array, which Xen may read. */
struct pcipt_device_add {
    uint16_t segment;
    uint8_t bus;
    uint8_t devfn;
    uint32_t flags;
    uint8_t physfn_bus;
    uint8_t physfn_devfn;
    uint16_t padding;
    uint32_t option;
};
_Static_assert(sizeof(struct pcipt_device_add) == 16, "12 bytes and one option");
_Static_assert(offsetof(struct pcipt_device_add, flags) == 4, "flags follow the address");
_Static_assert(offsetof(struct pcipt_device_add, physfn_bus) == 8, "physfn follows flags");
_Static_assert(offsetof(struct pcipt_device_add, physfn_devfn) == 9, "devfn follows bus");
_Static_assert(offsetof(struct pcipt_device_add, option) == 12, "the options come last");

/* xen_reserved_device_memory: page frames. */
struct pcipt_region {
    uint64_t start;
    uint64_t count;
};
_Static_assert(sizeof(struct pcipt_region) == 16, "two words of 64 bits");
_Static_assert(offsetof(struct pcipt_region, count) == 8, "the number of pages follows the first");

/* xen_reserved_device_memory_map, as a 64-bit domain lays it out. */
struct pcipt_reserved_map {
    uint32_t flags;
    uint32_t count;
    struct pcipt_region *regions;
    struct pcipt_device device;
    uint32_t padding;
};
_Static_assert(sizeof(struct pcipt_reserved_map) == 24, "24 bytes in a 64-bit domain");
_Static_assert(offsetof(struct pcipt_reserved_map, count) == 4, "the number of entries follows the flags");
_Static_assert(offsetof(struct pcipt_reserved_map, regions) == 8, "the buffer is a pointer of 64 bits");
_Static_assert(offsetof(struct pcipt_reserved_map, device) == 16, "the device comes last");

/* xen_sysctl_physinfo, 120 bytes in 4.17 to 4.22; there is room for one that has grown. */
struct pcipt_physinfo {
    uint32_t numbers[7];
    uint32_t capabilities;
    uint64_t rest[60];
};
_Static_assert(offsetof(struct pcipt_physinfo, capabilities) == 28, "the capabilities follow seven numbers");
_Static_assert(sizeof(struct pcipt_physinfo) == 512, "room for a structure that has grown");

/* xentoollog_logger: three functions, the third of which the libraries call only for loggers of their own. */
struct xentoollog_logger;
typedef void pcipt_logger_message(struct xentoollog_logger *logger, unsigned int level, int error,
                                  const char *context, const char *format, va_list arguments);
typedef void pcipt_logger_progress(struct xentoollog_logger *logger, const char *context, const char *doing,
                                   int percent, unsigned long done, unsigned long total);
typedef void pcipt_logger_destroy(struct xentoollog_logger *logger);
struct pcipt_logger {
    pcipt_logger_message *message;
    pcipt_logger_progress *progress;
    pcipt_logger_destroy *destroy;
};
_Static_assert(sizeof(struct pcipt_logger) == 3 * sizeof(void (*)(void)), "three functions, no padding");

/* Functions of libxencall.so.1 and libxenctrl.so.4.x, by type. Source: xencall.h, xenctrl.h (the same 4.17-4.21). */
struct xencall_handle;
struct xc_interface_core;
struct physdev_pci_device;
struct xen_sysctl_physinfo;
typedef struct xencall_handle *pcipt_xencall_open(struct xentoollog_logger *logger, unsigned int flags);
typedef int pcipt_xencall_close(struct xencall_handle *xcall);
typedef int pcipt_xencall2(struct xencall_handle *xcall, unsigned int op, uint64_t arg1, uint64_t arg2);
typedef void *pcipt_xencall_alloc_buffer(struct xencall_handle *xcall, size_t size);
typedef void pcipt_xencall_free_buffer(struct xencall_handle *xcall, void *buffer);
typedef struct xc_interface_core *pcipt_xc_interface_open(struct xentoollog_logger *logger,
                                                          struct xentoollog_logger *dombuild_logger,
                                                          unsigned int flags);
typedef int pcipt_xc_interface_close(struct xc_interface_core *xch);
typedef int pcipt_xc_pcitopoinfo(struct xc_interface_core *xch, unsigned int count,
                                 struct physdev_pci_device *devices, uint32_t *nodes);
typedef int pcipt_xc_test_assign_device(struct xc_interface_core *xch, uint32_t domain, uint32_t sbdf);
typedef int pcipt_xc_domain_memory_mapping(struct xc_interface_core *xch, uint32_t domain, unsigned long first_gfn,
                                           unsigned long first_mfn, unsigned long count, uint32_t add);
typedef int pcipt_xc_send_debug_keys(struct xc_interface_core *xch, const char *keys);
typedef int pcipt_xc_readconsolering(struct xc_interface_core *xch, char *buffer, unsigned int *count, int clear,
                                     int incremental, uint32_t *index);

typedef int pcipt_xc_physinfo(struct xc_interface_core *xch, struct xen_sysctl_physinfo *info);

/* Why a library could not be used: one line from the dynamic linker, or empty if there is no error. */
struct pcipt_reason {
    char text[PCIPT_REASON_SIZE];
};

/*
 * Hypercalls through libxencall, which is stable over Xen releases.
 *
 * Owner: the caller, until pcipt_call_close. The library stays loaded after it.
 * The device node must exist: the caller checks it first. -EACCES or -EPERM: the process is not root.
 */
struct pcipt_call;
int pcipt_call_open(const char *library, struct pcipt_reason *reason, struct pcipt_call **result);
void pcipt_call_close(struct pcipt_call *call);

/* PHYSDEVOP_pci_device_add. `flags` are PCIPT_FLAG_*, other bits: -EINVAL; physfn is used with FLAG_VIRTUAL only. */
int pcipt_call_add(struct pcipt_call *call, struct pcipt_device device, uint32_t flags, uint8_t physfn_bus,
                   uint8_t physfn_devfn);
/* PHYSDEVOP_pci_device_remove. It panics Xen before 4.19 if nobody owns the device: callers must check. */
int pcipt_call_remove(struct pcipt_call *call, struct pcipt_device device);
/*
 * XENMEM_reserved_device_memory_map: read the regions that `device` needs, or with NULL all regions of the machine.
 * `*count` (in) is the number of entries that `regions` can hold, (out) the number of regions. If there are more
 * regions than entries: -ENOBUFS, and nothing is copied.
 */
int pcipt_call_reserved(struct pcipt_call *call, const struct pcipt_device *device, uint32_t *count,
                        struct pcipt_region *regions);
/*
 * XENVER_commandline: copy Xen's command line, at most PCIPT_COMMAND_LINE_SIZE - 1 characters and a NUL. Xen keeps no
 * more of it, and cuts what is longer. `text` must have PCIPT_COMMAND_LINE_SIZE bytes; after a failure it is unchanged.
 */
int pcipt_call_command_line(struct pcipt_call *call, char *text);

/*
 * The toolstack's interface through libxenctrl. The library must be of the same release as Xen: -EACCES from any call
 * below means that it is not.
 *
 * Owner: the caller, until pcipt_control_close. The library stays loaded after it.
 */
struct pcipt_control;
int pcipt_control_open(const char *library, struct pcipt_reason *reason, struct pcipt_control **result);
void pcipt_control_close(struct pcipt_control *control);

/* XEN_SYSCTL_pcitopoinfo: read the node of each of `count` devices, or PCIPT_NODE_NONE or PCIPT_NODE_UNKNOWN. */
int pcipt_control_nodes(struct pcipt_control *control, uint32_t count, const struct pcipt_device *devices,
                        uint32_t *nodes);
/* XEN_DOMCTL_test_assign_device to DOMID_INVALID: 0 if dom0 or quarantine owns the device, else -EINVAL. */
int pcipt_control_test(struct pcipt_control *control, struct pcipt_device device);
/*
 * XEN_DOMCTL_memory_mapping for the hardware domain, with gfn equal to mfn. If Xen stops after a part of the pages,
 * libxc calls it again for the rest. If a map fails, libxc unmaps from `first` on, up to the first page that is not
 * mapped; if that fails too, its errno is returned. An unmap stops at the first page that is not mapped: -EINVAL. For a
 * PV domain both do nothing and return 0: callers must check.
 */
int pcipt_control_map(struct pcipt_control *control, uint64_t first, uint64_t count);
int pcipt_control_unmap(struct pcipt_control *control, uint64_t first, uint64_t count);
/* Send Xen a debug key, 'Q' or 'q'; -EPERM for any other. When the call returns, its output is in the console ring. */
int pcipt_control_press(struct pcipt_control *control, char key);
/*
 * Copy at most `size` characters of Xen's console ring; the ring is not cleared. `*index` is the place to read from
 * (in) and the place for the next read (out), `*count` the number of characters copied. If Xen has overwritten the
 * place to read from, reading starts at the oldest character: then *index - *count after the call is not *index before
 * the call, modulo 2^32.
 */
int pcipt_control_read(struct pcipt_control *control, uint32_t size, char *buffer, uint32_t *index, uint32_t *count);

/* What this Xen can do: the bits PCIPT_CAPABILITY_* of XEN_SYSCTL_physinfo. */
int pcipt_control_capabilities(struct pcipt_control *control, uint32_t *capabilities);

#endif
