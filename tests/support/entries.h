/* SPDX-License-Identifier: Apache-2.0
 *
 * How much a folder holds.
 */
#ifndef TR_TESTS_SUPPORT_ENTRIES_H
#define TR_TESTS_SUPPORT_ENTRIES_H

#include <dirent.h>

/* Names in it but "." and ".."; -1: there is no such folder. */
static inline int count_entries(const char *folder)
{
    DIR *d = opendir(folder);
    int n = -2;

    if (!d)
        return -1;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

#endif
