/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PCIPT_FILES_H
#define PCIPT_FILES_H

#include <stddef.h>
#include <stdint.h>

#define PCIPT_FILES_MOST 4096 /* bytes of one file: a sysfs attribute has at most one page */

/* One file of a directory: what is wanted of it, and what was read. Sizes are in bytes. */
struct pcipt_file {
    uint32_t limit;   /* a longer file is EFBIG; 0: this is a link, and its text is read */
    uint32_t wanted;  /* so many bytes from its beginning; 0: all of it */
    int32_t status;   /* 0: it was read; else the errno, EMEDIUMTYPE if it is no regular file */
    uint32_t start;   /* where in `content` its bytes begin */
    uint32_t length;  /* how many there are */
};

/*
 * Read `count` files of an open directory. `names` has their names, each with a NUL behind it. Files are not
 * followed if they are links; the kind of a file is looked at before it is opened. A file whose limit is above
 * PCIPT_FILES_MOST is EINVAL, one for which `content` (`room` bytes) has no place left is ENOSPC.
 */
void pcipt_files_read(int directory, const char *names, struct pcipt_file *files, size_t count, uint8_t *content,
                      size_t room);

#endif
