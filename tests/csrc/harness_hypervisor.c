/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs the shim against the fake libraries given as arguments: FAKE_XENCALL FAKE_XENCTRL EMPTY_LIBRARY.
 * Prints a line for each check that fails and the number of checks; the exit status is 1 if any failed.
 */
#include "fakes.h"
#include "hypervisor.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int checks, failures;

static void expect(long long got, long long wanted, const char *what, int line)
{
    checks++;
    if (got == wanted)
        return;
    failures++;
    printf("line %d: %s: got %lld, wanted %lld\n", line, what, got, wanted);
}
#define EXPECT(got, wanted) expect((long long)(got), (long long)(wanted), #got, __LINE__)

/* Every error that Xen or the kernel's privcmd gives to one of our calls, and some that nobody expects. */
static const int errnos[] = {EPERM,  ESRCH,  EIO,    ENXIO,  E2BIG,  EAGAIN,     ENOMEM,  EACCES, EFAULT,
                             EBUSY,  EEXIST, EXDEV,  ENODEV, EINVAL, ENOSPC,     ERANGE,  ENOSYS, ENOBUFS,
                             EBADF,  ENODATA, EILSEQ, EINTR,  ENOENT, EOPNOTSUPP, ETIMEDOUT};
#define ERRNOS (sizeof(errnos) / sizeof(errnos[0]))

static void *state(const char *library, const char *name)
{
    void *loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);

    return loaded ? dlsym(loaded, name) : NULL;
}

static void test_reserved(struct pcipt_call *call, struct fake_call *fake)
{
    struct pcipt_device device = {0x1234, 0x56, 0x78};
    struct pcipt_region regions[4] = {{0, 0}};
    uint32_t count = 0;

    /* none: an empty question is enough */
    EXPECT(pcipt_call_reserved(call, NULL, &count, regions), 0);
    EXPECT(count, 0);
    EXPECT(fake->op, 12);
    EXPECT(fake->command, 27);
    EXPECT(fake->size, 24);
    EXPECT(memcmp(fake->bytes, "\1\0\0\0\0\0\0\0", 8), 0);
    EXPECT(memcmp(fake->bytes + 16, "\0\0\0\0\0\0\0\0", 8), 0);

    /* too many for the room, of which nothing is touched; then enough room */
    fake->regions = 3;
    count = 2;
    EXPECT(pcipt_call_reserved(call, &device, &count, regions), -ENOBUFS);
    EXPECT(count, 3);
    EXPECT(regions[0].count, 0);
    EXPECT(fake->size, 24 + 2 * 16);
    EXPECT(memcmp(fake->bytes, "\0\0\0\0\2\0\0\0", 8), 0);
    EXPECT(memcmp(fake->bytes + 16, "\x34\x12\x56\x78\0\0\0\0", 8), 0);
    EXPECT(pcipt_call_reserved(call, &device, &count, regions), 0);
    EXPECT(count, 3);
    EXPECT(regions[0].start, 0x7fff0);
    EXPECT(regions[0].count, 1);
    EXPECT(regions[2].start, 0x80010);
    EXPECT(regions[2].count, 3);
    EXPECT(regions[3].count, 0);
    fake->regions = 0;
}

static void test_command_line(struct pcipt_call *call, struct fake_call *fake)
{
    char text[PCIPT_COMMAND_LINE_SIZE];

    snprintf(fake->command_line, sizeof(fake->command_line), "dom0=pvh com1=115200");
    EXPECT(pcipt_call_command_line(call, text), 0);
    EXPECT(strcmp(text, "dom0=pvh com1=115200"), 0);
    EXPECT(fake->op, 17);
    EXPECT(fake->command, 9);
    EXPECT(fake->size, PCIPT_COMMAND_LINE_SIZE);

    /* one that fills the buffer ends with a NUL all the same */
    memset(fake->command_line, 'x', sizeof(fake->command_line));
    EXPECT(pcipt_call_command_line(call, text), 0);
    EXPECT(strlen(text), PCIPT_COMMAND_LINE_SIZE - 1);
    memset(fake->command_line, 0, sizeof(fake->command_line));
    for (size_t i = 0; i < ERRNOS; i++) {
        text[0] = 'y';
        fake->fail_call = errnos[i];
        EXPECT(pcipt_call_command_line(call, text), -errnos[i]);
        fake->fail_call = 0;
        fake->fail_alloc = errnos[i];
        EXPECT(pcipt_call_command_line(call, text), -errnos[i]);
        fake->fail_alloc = 0;
        EXPECT(text[0], 'y');
    }
}

static void test_call(const char *library, struct fake_call *fake)
{
    /* device, flags, physfn: the 16 bytes that must arrive (little endian, the option always 0) */
    static const struct {
        struct pcipt_device device;
        uint32_t flags;
        uint8_t physfn_bus, physfn_devfn;
        unsigned char bytes[16];
    } adds[] = {
        /* an ordinary function */
        {{0, 2, 0x08}, 0, 0, 0, {0, 0, 2, 8}},
        /* the highest address there is */
        {{0xffff, 0xff, 0xff}, 0, 0, 0, {0xff, 0xff, 0xff, 0xff}},
        /* byte order of the segment */
        {{0x1234, 0x56, 0x78}, 0, 0, 0, {0x34, 0x12, 0x56, 0x78}},
        /* an ARI function */
        {{0, 3, 0x41}, PCIPT_FLAG_EXTENDED, 0, 0, {0, 0, 3, 0x41, 1}},
        /* a virtual function */
        {{0, 3, 1}, PCIPT_FLAG_VIRTUAL, 3, 0x10, {0, 0, 3, 1, 2, 0, 0, 0, 3, 0x10}},
        /* both */
        {{1, 4, 0xff}, PCIPT_FLAG_VIRTUAL | PCIPT_FLAG_EXTENDED, 3, 1, {1, 0, 4, 0xff, 3, 0, 0, 0, 3, 1}},
        /* a physical function without the flag does not arrive */
        {{0, 2, 0}, 0, 9, 9, {0, 0, 2, 0}},
    };
    struct pcipt_device device = {0x1234, 0x56, 0x78};
    struct pcipt_region region;
    struct pcipt_reason reason;
    struct pcipt_call *call = NULL;
    uint32_t count;

    EXPECT(pcipt_call_open(library, &reason, &call), 0);
    EXPECT(reason.text[0], 0);
    EXPECT(fake->opened, 1);
    EXPECT(fake->logger_spoke, 1);
    for (size_t i = 0; i < sizeof(adds) / sizeof(adds[0]); i++) {
        EXPECT(pcipt_call_add(call, adds[i].device, adds[i].flags, adds[i].physfn_bus, adds[i].physfn_devfn), 0);
        EXPECT(fake->op, 33);
        EXPECT(fake->command, 25);
        EXPECT(fake->size, 16);
        EXPECT(memcmp(fake->bytes, adds[i].bytes, 16), 0);
    }
    /* PXM (4) and flags that do not exist never reach Xen, which would take them */
    int before = fake->calls;
    for (uint32_t flag = 4; flag; flag <<= 1)
        EXPECT(pcipt_call_add(call, device, flag, 0, 0), -EINVAL);
    EXPECT(fake->calls, before);

    EXPECT(pcipt_call_remove(call, device), 0);
    EXPECT(fake->op, 33);
    EXPECT(fake->command, 26);
    EXPECT(fake->size, 4);
    EXPECT(memcmp(fake->bytes, "\x34\x12\x56\x78", 4), 0);

    test_reserved(call, fake);
    test_command_line(call, fake);

    for (size_t i = 0; i < ERRNOS; i++) {
        fake->fail_call = errnos[i];
        EXPECT(pcipt_call_add(call, device, 0, 0, 0), -errnos[i]);
        EXPECT(pcipt_call_remove(call, device), -errnos[i]);
        count = 1;
        EXPECT(pcipt_call_reserved(call, NULL, &count, &region), -errnos[i]);
        fake->fail_call = 0;
        fake->fail_alloc = errnos[i];
        EXPECT(pcipt_call_remove(call, device), -errnos[i]);
        EXPECT(pcipt_call_reserved(call, &device, &count, &region), -errnos[i]);
        fake->fail_alloc = 0;
    }
    /* a failure that forgets errno is a failure all the same */
    fake->fail_call = -1;
    errno = 0;
    EXPECT(pcipt_call_remove(call, device), -EIO);
    fake->fail_call = 0;
    fake->fail_alloc = -1;
    errno = EPERM;
    EXPECT(pcipt_call_remove(call, device), -ENOMEM);
    fake->fail_alloc = 0;
    EXPECT(fake->allocated, fake->freed);

    pcipt_call_close(call);
    EXPECT(fake->closed, 1);
    pcipt_call_close(NULL);

    for (size_t i = 0; i < ERRNOS; i++) {
        fake->fail_open = errnos[i];
        EXPECT(pcipt_call_open(library, &reason, &call), -errnos[i]);
        EXPECT(reason.text[0], 0);
    }
    fake->fail_open = 0;
}

static void test_control(const char *library, struct fake_control *fake)
{
    struct pcipt_device devices[3] = {{0x1234, 0x56, 0x78}, {0xffff, 0xff, 0x01}, {0, 0, 0x0a}};
    struct pcipt_reason reason;
    struct pcipt_control *control = NULL;
    uint32_t nodes[3] = {7, 7, 7}, index, count;
    char buffer[32];

    EXPECT(pcipt_control_open(library, &reason, &control), 0);
    EXPECT(fake->opened, 1);

    fake->first_node = 3;
    EXPECT(pcipt_control_nodes(control, 3, devices, nodes), 0);
    EXPECT(fake->count, 3);
    EXPECT(memcmp(fake->devices, "\x34\x12\x56\x78\xff\xff\xff\x01\0\0\0\x0a", 12), 0);
    EXPECT(nodes[0], 3);
    EXPECT(nodes[1], 0xffffffff);
    EXPECT(nodes[2], 0xfffffffe);
    EXPECT(pcipt_control_nodes(control, 0, devices, nodes), 0);
    EXPECT(fake->nodes_calls, 1); /* an empty question is not asked */

    EXPECT(pcipt_control_test(control, devices[0]), 0);
    EXPECT(fake->domain, 0x7ff4);
    EXPECT(fake->sbdf, 0x12345678);
    EXPECT(pcipt_control_test(control, devices[1]), 0);
    EXPECT(fake->sbdf, 0xffffff01);

    /* frames above 32 bits arrive whole; the domain is always 0, gfn and mfn are equal */
    EXPECT(pcipt_control_map(control, 0xfe604, 4), 0);
    EXPECT(fake->mapping_domain, 0);
    EXPECT(fake->mapping_add, 1);
    EXPECT(fake->first_gfn, 0xfe604);
    EXPECT(fake->first_mfn, 0xfe604);
    EXPECT(fake->frames, 4);
    EXPECT(pcipt_control_unmap(control, 0xabcdef0123456, 0x123456789a), 0);
    EXPECT(fake->mapping_domain, 0);
    EXPECT(fake->mapping_add, 0);
    EXPECT(fake->first_gfn, 0xabcdef0123456);
    EXPECT(fake->first_mfn, 0xabcdef0123456);
    EXPECT(fake->frames, 0x123456789a);

    /* of all keys only two are pressed */
    for (int key = 0; key < 256; key++) {
        int allowed = key == 'Q' || key == 'q';

        EXPECT(pcipt_control_press(control, (char)key), allowed ? 0 : -EPERM);
        if (allowed)
            EXPECT(fake->key, key);
    }
    EXPECT(fake->presses, 2);

    fake->capabilities = 0x3c7;
    EXPECT(pcipt_control_capabilities(control, &count), 0);
    EXPECT(count, 0x3c7);

    /* the ring: from the start, on from there, the end, a place that is gone, a place that never was */
    memcpy(fake->ring, "abcdefghij", 10);
    fake->end = 10;
    index = 0;
    EXPECT(pcipt_control_read(control, 4, buffer, &index, &count), 0);
    EXPECT(count, 4);
    EXPECT(index, 4);
    EXPECT(memcmp(buffer, "abcd", 4), 0);
    EXPECT(pcipt_control_read(control, 32, buffer, &index, &count), 0);
    EXPECT(count, 6);
    EXPECT(index, 10);
    EXPECT(memcmp(buffer, "efghij", 6), 0);
    EXPECT(pcipt_control_read(control, 32, buffer, &index, &count), 0);
    EXPECT(count, 0);
    EXPECT(index, 10);
    fake->oldest = 8;
    index = 4;
    EXPECT(pcipt_control_read(control, 32, buffer, &index, &count), 0);
    EXPECT(count, 2);
    EXPECT(index - count, 8); /* not 4: something was lost */
    index = 4000000000u;
    EXPECT(pcipt_control_read(control, 32, buffer, &index, &count), 0);
    EXPECT(count, 2);
    EXPECT(pcipt_control_read(control, 0, buffer, &index, &count), 0);
    EXPECT(count, 0);
    EXPECT(fake->clears, 0);
    EXPECT(fake->reads, 5);

    for (size_t i = 0; i < ERRNOS; i++) {
        fake->fail = errnos[i];
        count = 5;
        EXPECT(pcipt_control_nodes(control, 3, devices, nodes), -errnos[i]);
        EXPECT(pcipt_control_test(control, devices[0]), -errnos[i]);
        EXPECT(pcipt_control_map(control, 1, 1), -errnos[i]);
        EXPECT(pcipt_control_unmap(control, 1, 1), -errnos[i]);
        EXPECT(pcipt_control_press(control, 'Q'), -errnos[i]);
        EXPECT(pcipt_control_capabilities(control, &count), -errnos[i]);
        EXPECT(count, 0);
        EXPECT(pcipt_control_read(control, 32, buffer, &index, &count), -errnos[i]);
        EXPECT(count, 0);
    }
    fake->fail = -1;
    errno = EPERM;
    EXPECT(pcipt_control_test(control, devices[0]), -EIO);
    fake->fail = 0;

    pcipt_control_close(control);
    EXPECT(fake->closed, 1);
    pcipt_control_close(NULL);

    for (size_t i = 0; i < ERRNOS; i++) {
        fake->fail_open = errnos[i];
        EXPECT(pcipt_control_open(library, &reason, &control), -errnos[i]);
    }
    fake->fail_open = 0;
}

static void test_loading(const char *empty)
{
    struct pcipt_reason reason;
    struct pcipt_call *call = NULL;
    struct pcipt_control *control = NULL;
    char name[4096];

    EXPECT(pcipt_call_open("libpcipt-does-not-exist.so.9", &reason, &call), -ELIBACC);
    EXPECT(strstr(reason.text, "libpcipt-does-not-exist.so.9") != NULL, 1);
    EXPECT(pcipt_control_open("libpcipt-does-not-exist.so.9", &reason, &control), -ELIBACC);
    EXPECT(pcipt_call_open(empty, &reason, &call), -ELIBBAD);
    EXPECT(strstr(reason.text, "xencall_open") != NULL, 1);
    EXPECT(pcipt_control_open(empty, &reason, &control), -ELIBBAD);
    EXPECT(strstr(reason.text, "xc_interface_open") != NULL, 1);
    /* a reason longer than its room is cut, not written past it */
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    EXPECT(pcipt_call_open(name, &reason, &call), -ELIBACC);
    EXPECT(strlen(reason.text) < sizeof(reason.text), 1);
    EXPECT(call == NULL && control == NULL, 1);
}

int main(int argc, char **argv)
{
    struct fake_call *call;
    struct fake_control *control;

    if (argc != 4)
        return 2;
    call = state(argv[1], "fake_call");
    control = state(argv[2], "fake_control");
    if (!call || !control)
        return 2;
    test_call(argv[1], call);
    test_control(argv[2], control);
    test_loading(argv[3]);
    printf("%d checks, %d failures\n", checks, failures);
    return failures ? 1 : 0;
}
