/* SPDX-License-Identifier: GPL-2.0-or-later */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Give the number of bytes, or the negative errno. */
static ssize_t read_once(int opened, uint8_t *content, size_t size)
{
    ssize_t length;

    do
        length = read(opened, content, size);
    while (length < 0 && errno == EINTR);
    return length < 0 ? -errno : length;
}

static ssize_t read_regular(int directory, const char *name, const struct pcipt_file *file, uint8_t *content)
{
    struct stat status;
    ssize_t length;
    int opened;

    /* Opening a device node can have an effect already. */
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW))
        return -errno;
    if (!S_ISREG(status.st_mode))
        return -EMEDIUMTYPE;
    opened = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (opened < 0)
        return -errno;
    length = read_once(opened, content, file->wanted ? file->wanted : file->limit + 1);
    close(opened);
    if (length < 0)
        return length;
    /* sysfs says that each text has a page, whatever its content is. */
    if (length > file->limit || (status.st_size > file->limit && status.st_size != PCIPT_FILES_MOST))
        return -EFBIG;
    return length;
}

static ssize_t read_text_of_link(int directory, const char *name, uint8_t *content)
{
    ssize_t length = readlinkat(directory, name, (char *)content, PCIPT_FILES_MOST);

    if (length < 0)
        return -errno;
    return length < PCIPT_FILES_MOST ? length : -ENAMETOOLONG;
}

void pcipt_files_read(int directory, const char *names, struct pcipt_file *files, size_t count, uint8_t *content,
                      size_t room)
{
    size_t used = 0;

    for (size_t i = 0; i < count; i++, names += strlen(names) + 1) {
        struct pcipt_file *file = &files[i];
        ssize_t length;

        file->start = (uint32_t)used;
        file->length = 0;
        if (file->limit > PCIPT_FILES_MOST || file->wanted > PCIPT_FILES_MOST)
            length = -EINVAL;
        else if (room - used < PCIPT_FILES_MOST + 1)
            length = -ENOSPC;
        else if (!file->limit)
            length = read_text_of_link(directory, names, content + used);
        else
            length = read_regular(directory, names, file, content + used);
        file->status = length < 0 ? (int32_t)-length : 0;
        if (length > 0) {
            file->length = (uint32_t)length;
            used += (size_t)length;
        }
    }
}
