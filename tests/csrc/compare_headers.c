/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compiles only where every layout, number and prototype that the shim declares is what Xen's headers say. */
#include <xencall.h>
#include <xenctrl.h>
#include <xentoollog.h>

#include <xen/domctl.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sysctl.h>
#include <xen/version.h>
#include <xen/xen.h>

#include "hypervisor.h"

#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(ours) == sizeof(theirs), #ours " has another size than " #theirs)
#define SAME_PLACE(ours, our, theirs, their)                                                                   \
    _Static_assert(offsetof(ours, our) == offsetof(theirs, their), #ours "." #our " lies elsewhere");            \
    _Static_assert(sizeof(((ours *)0)->our) == sizeof(((theirs *)0)->their), #ours "." #our " has another size")
#define SAME_NUMBER(ours, theirs) _Static_assert((ours) == (theirs), #ours " is not " #theirs)
#define SAME_TYPE(ours, theirs) \
    _Static_assert(__builtin_types_compatible_p(ours, __typeof__(theirs)), #ours " is not the type of " #theirs)

SAME_SIZE(struct pcipt_device, struct physdev_pci_device);
SAME_PLACE(struct pcipt_device, segment, struct physdev_pci_device, seg);
SAME_PLACE(struct pcipt_device, bus, struct physdev_pci_device, bus);
SAME_PLACE(struct pcipt_device, devfn, struct physdev_pci_device, devfn);

/* The optional array is flexible: ours has one element of it. */
_Static_assert(sizeof(struct pcipt_device_add) ==
                   sizeof(struct physdev_pci_device_add) + sizeof(((struct physdev_pci_device_add *)0)->optarr[0]),
               "struct pcipt_device_add holds one option");
SAME_PLACE(struct pcipt_device_add, segment, struct physdev_pci_device_add, seg);
SAME_PLACE(struct pcipt_device_add, bus, struct physdev_pci_device_add, bus);
SAME_PLACE(struct pcipt_device_add, devfn, struct physdev_pci_device_add, devfn);
SAME_PLACE(struct pcipt_device_add, flags, struct physdev_pci_device_add, flags);
SAME_PLACE(struct pcipt_device_add, physfn_bus, struct physdev_pci_device_add, physfn.bus);
SAME_PLACE(struct pcipt_device_add, physfn_devfn, struct physdev_pci_device_add, physfn.devfn);
SAME_PLACE(struct pcipt_device_add, option, struct physdev_pci_device_add, optarr[0]);

SAME_SIZE(struct pcipt_region, struct xen_reserved_device_memory);
SAME_PLACE(struct pcipt_region, start, struct xen_reserved_device_memory, start_pfn);
SAME_PLACE(struct pcipt_region, count, struct xen_reserved_device_memory, nr_pages);
SAME_SIZE(struct pcipt_reserved_map, struct xen_reserved_device_memory_map);
SAME_PLACE(struct pcipt_reserved_map, flags, struct xen_reserved_device_memory_map, flags);
SAME_PLACE(struct pcipt_reserved_map, count, struct xen_reserved_device_memory_map, nr_entries);
SAME_PLACE(struct pcipt_reserved_map, regions, struct xen_reserved_device_memory_map, buffer);
SAME_PLACE(struct pcipt_reserved_map, device, struct xen_reserved_device_memory_map, dev.pci);

SAME_SIZE(struct pcipt_logger, struct xentoollog_logger);
SAME_PLACE(struct pcipt_logger, message, struct xentoollog_logger, vmessage);
SAME_PLACE(struct pcipt_logger, progress, struct xentoollog_logger, progress);
SAME_PLACE(struct pcipt_logger, destroy, struct xentoollog_logger, destroy);
SAME_TYPE(pcipt_logger_message *, ((struct xentoollog_logger *)0)->vmessage);
SAME_TYPE(pcipt_logger_progress *, ((struct xentoollog_logger *)0)->progress);
SAME_TYPE(pcipt_logger_destroy *, ((struct xentoollog_logger *)0)->destroy);

SAME_NUMBER(PCIPT_HYPERCALL_PHYSDEV_OP, __HYPERVISOR_physdev_op);
SAME_NUMBER(PCIPT_PHYSDEV_DEVICE_ADD, PHYSDEVOP_pci_device_add);
SAME_NUMBER(PCIPT_PHYSDEV_DEVICE_REMOVE, PHYSDEVOP_pci_device_remove);
SAME_NUMBER(PCIPT_FLAG_EXTENDED, XEN_PCI_DEV_EXTFN);
SAME_NUMBER(PCIPT_FLAG_VIRTUAL, XEN_PCI_DEV_VIRTFN);
SAME_NUMBER(PCIPT_DOMAIN_INVALID, DOMID_INVALID);
SAME_NUMBER(PCIPT_HYPERCALL_MEMORY_OP, __HYPERVISOR_memory_op);
SAME_NUMBER(PCIPT_MEMORY_RESERVED_MAP, XENMEM_reserved_device_memory_map);
SAME_NUMBER(PCIPT_RESERVED_ALL, XENMEM_RDM_ALL);
SAME_NUMBER(PCIPT_HYPERCALL_XEN_VERSION, __HYPERVISOR_xen_version);
SAME_NUMBER(PCIPT_VERSION_COMMAND_LINE, XENVER_commandline);
SAME_NUMBER(PCIPT_COMMAND_LINE_SIZE, sizeof(xen_commandline_t));
SAME_NUMBER(PCIPT_MAPPING_ADD, DPCI_ADD_MAPPING);
SAME_NUMBER(PCIPT_MAPPING_REMOVE, DPCI_REMOVE_MAPPING);
SAME_NUMBER(PCIPT_NODE_NONE, XEN_INVALID_NODE_ID);
SAME_NUMBER(PCIPT_NODE_UNKNOWN, XEN_INVALID_DEV);

SAME_TYPE(pcipt_xencall_open, xencall_open);
SAME_TYPE(pcipt_xencall_close, xencall_close);
SAME_TYPE(pcipt_xencall2, xencall2);
SAME_TYPE(pcipt_xencall_alloc_buffer, xencall_alloc_buffer);
SAME_TYPE(pcipt_xencall_free_buffer, xencall_free_buffer);
SAME_TYPE(pcipt_xc_interface_open, xc_interface_open);
SAME_TYPE(pcipt_xc_interface_close, xc_interface_close);
SAME_TYPE(pcipt_xc_pcitopoinfo, xc_pcitopoinfo);
SAME_TYPE(pcipt_xc_test_assign_device, xc_test_assign_device);
SAME_TYPE(pcipt_xc_domain_memory_mapping, xc_domain_memory_mapping);
SAME_TYPE(pcipt_xc_send_debug_keys, xc_send_debug_keys);
SAME_TYPE(pcipt_xc_readconsolering, xc_readconsolering);
SAME_TYPE(pcipt_xc_physinfo, xc_physinfo);

SAME_NUMBER(PCIPT_CAPABILITY_HVM, XEN_SYSCTL_PHYSCAP_hvm);
SAME_NUMBER(PCIPT_CAPABILITY_PV, XEN_SYSCTL_PHYSCAP_pv);
SAME_NUMBER(PCIPT_CAPABILITY_DIRECTIO, XEN_SYSCTL_PHYSCAP_directio);
SAME_NUMBER(offsetof(struct pcipt_physinfo, capabilities), offsetof(struct xen_sysctl_physinfo, capabilities));
_Static_assert(sizeof(struct pcipt_physinfo) >= sizeof(struct xen_sysctl_physinfo), "xc_physinfo fits");
