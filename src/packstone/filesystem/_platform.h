/* What Linux and macOS name differently, and calls repeated after EINTR.
 *
 * Every function here may run without the interpreter lock: no Python objects.
 */
#ifndef PACKSTONE_PLATFORM_H
#define PACKSTONE_PLATFORM_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#if defined(__linux__) || defined(__APPLE__)
#include <sys/xattr.h>
#endif

#if defined(__APPLE__)
#define MTIME(st) ((st)->st_mtimespec)
#define CTIME(st) ((st)->st_ctimespec)
#else
#define MTIME(st) ((st)->st_mtim)
#define CTIME(st) ((st)->st_ctim)
#endif

#ifndef O_NOATIME
#define O_NOATIME 0
#endif
#ifndef AT_NO_AUTOMOUNT
#define AT_NO_AUTOMOUNT 0
#endif

#define RETRY(result, call)                                                              \
    do {                                                                                 \
        (result) = (call);                                                               \
    } while ((result) < 0 && errno == EINTR)

/* A time in nanoseconds; what int64 cannot hold (before 1677, after 2262) is clamped,
 * because the format stores 64 bits. */
static int64_t
time_ns(struct timespec time)
{
    if (time.tv_sec > INT64_MAX / 1000000000 - 1) {
        return INT64_MAX;
    }
    if (time.tv_sec < INT64_MIN / 1000000000 + 1) {
        return INT64_MIN;
    }
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static struct timespec
timespec_of(int64_t ns)
{
    struct timespec time;
    int64_t seconds = ns / 1000000000;
    int64_t rest = ns % 1000000000;
    if (rest < 0) { /* before 1970: the nanoseconds still count upwards */
        rest += 1000000000;
        seconds -= 1;
    }
    time.tv_sec = (time_t)seconds;
    time.tv_nsec = (long)rest;
    return time;
}

/* Open a name of the source. Reading leaves no trace in its atime where that is allowed
 * (own files, or root); `*quiet` remembers within a batch that it is not. */
static int
open_source(int directory, const char *name, int flags, int *quiet)
{
    int fd;
    flags |= O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    if (O_NOATIME && *quiet) {
        RETRY(fd, openat(directory, name, flags | O_NOATIME));
        if (fd >= 0 || errno != EPERM) {
            return fd;
        }
        RETRY(fd, openat(directory, name, flags));
        if (fd >= 0) {
            *quiet = 0;
        }
        return fd;
    }
    RETRY(fd, openat(directory, name, flags));
    return fd;
}

/* Is this a name that can stand in a directory, and names nothing but an entry of it? */
static int
is_entry_name(const char *name, size_t size)
{
    if (size == 0 || size > 255) {
        return 0;
    }
    if (name[0] == '.' && (size == 1 || (size == 2 && name[1] == '.'))) {
        return 0;
    }
    return memchr(name, '/', size) == NULL && memchr(name, 0, size) == NULL;
}

#endif
