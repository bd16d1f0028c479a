/* Attributes by descriptor: owner, mode and time to set, extended attributes to read and set.
 *
 * No Python objects except where a function says so. On Linux a symbolic link, fifo or device
 * is held by an O_PATH descriptor, on which the f-calls fail with EBADF; its name under
 * /proc/self/fd reaches the same inode and nothing else.
 */
#ifndef PACKSTONE_ATTRIBUTES_H
#define PACKSTONE_ATTRIBUTES_H

#include <Python.h>

#include "_platform.h"

/* What could not be applied; the file itself is there. */
enum { OWNER_LOST = 1, MODE_LOST = 2, TIME_LOST = 4, SETUID_LOST = 8 };

#if defined(__linux__)
#define PROC_PATH_SIZE 40
static const char *
proc_path(int fd, char *path)
{
    snprintf(path, PROC_PATH_SIZE, "/proc/self/fd/%d", fd);
    return path;
}
#endif

static int
set_owner(int fd, uid_t uid, gid_t gid)
{
    int result;
    RETRY(result, fchown(fd, uid, gid));
#if defined(__linux__)
    if (result < 0 && errno == EBADF) {
        char path[PROC_PATH_SIZE];
        RETRY(result, chown(proc_path(fd, path), uid, gid));
    }
#endif
    return result;
}

static int
set_mode(int fd, mode_t mode)
{
    int result;
    RETRY(result, fchmod(fd, mode));
#if defined(__linux__)
    if (result < 0 && errno == EBADF) {
        char path[PROC_PATH_SIZE];
        RETRY(result, chmod(proc_path(fd, path), mode));
    }
#endif
    return result;
}

static int
set_mtime(int fd, int64_t mtime_ns)
{
    int result;
    struct timespec times[2] = {{0, UTIME_OMIT}, timespec_of(mtime_ns)};
    RETRY(result, futimens(fd, times));
#if defined(__linux__)
    if (result < 0 && errno == EBADF) {
        char path[PROC_PATH_SIZE];
        RETRY(result, utimensat(AT_FDCWD, proc_path(fd, path), times, 0));
    }
#endif
    return result;
}

/* An owner as a snapshot names it; what is no possible owner (chown takes -1 for "leave it",
 * and a larger number would wrap around to somebody else's) becomes NO_OWNER. */
#define NO_OWNER UINT32_MAX

static uint32_t
owner_number(unsigned long long number)
{
    return number < NO_OWNER ? (uint32_t)number : NO_OWNER;
}

/* Give `fd` its owner; `*has_uid` and `*has_gid` say whose it is, before and after. An
 * ordinary user may at least hand a file to one of his groups. Returns OWNER_LOST or 0. */
static int
apply_owner(int fd, uint32_t uid, uint32_t gid, uint32_t *has_uid, uint32_t *has_gid)
{
    if (*has_uid == uid && *has_gid == gid) {
        return 0;
    }
    if (uid != NO_OWNER && gid != NO_OWNER && set_owner(fd, (uid_t)uid, (gid_t)gid) == 0) {
        *has_uid = uid;
        *has_gid = gid;
        return 0;
    }
    if (gid != NO_OWNER && *has_gid != gid && set_owner(fd, (uid_t)-1, (gid_t)gid) == 0) {
        *has_gid = gid;
    }
    return OWNER_LOST;
}

/* Mode and time. A set-user-id or set-group-id bit stays only on the owner it was meant for:
 * nobody asked for a program that runs as whoever restored it. */
static int
apply_mode(int fd, uint32_t mode, int64_t mtime_ns, int uid_kept, int gid_kept)
{
    int lost = 0;
    mode_t bits = (mode_t)(mode & 07777);
    if (!S_ISDIR(mode)) {
        if ((!uid_kept && (bits & S_ISUID)) || (!gid_kept && (bits & S_ISGID))) {
            lost |= SETUID_LOST;
        }
        bits &= (mode_t) ~((uid_kept ? 0 : S_ISUID) | (gid_kept ? 0 : S_ISGID));
    }
    if (!S_ISLNK(mode) && set_mode(fd, bits) < 0) {
        lost |= MODE_LOST;
    }
    if (set_mtime(fd, mtime_ns) < 0) {
        lost |= TIME_LOST;
    }
    return lost;
}

/* ---------------------------------------------------------------- extended attributes */

static ssize_t
list_attributes(int fd, char *buffer, size_t room)
{
#if defined(__linux__)
    ssize_t size = flistxattr(fd, buffer, room);
    if (size < 0 && errno == EBADF) {
        char path[PROC_PATH_SIZE];
        size = listxattr(proc_path(fd, path), buffer, room);
    }
    return size;
#elif defined(__APPLE__)
    return flistxattr(fd, buffer, room, 0);
#else
    (void)fd, (void)buffer, (void)room;
    errno = ENOTSUP;
    return -1;
#endif
}

static ssize_t
get_attribute(int fd, const char *name, char *buffer, size_t room)
{
#if defined(__linux__)
    ssize_t size = fgetxattr(fd, name, buffer, room);
    if (size < 0 && errno == EBADF) {
        char path[PROC_PATH_SIZE];
        size = getxattr(proc_path(fd, path), name, buffer, room);
    }
    return size;
#elif defined(__APPLE__)
    return fgetxattr(fd, name, buffer, room, 0, 0);
#else
    (void)fd, (void)name, (void)buffer, (void)room;
    errno = ENOTSUP;
    return -1;
#endif
}

static int
set_attribute(int fd, const char *name, const char *value, size_t size)
{
#if defined(__linux__)
    int result = fsetxattr(fd, name, value, size, 0);
    if (result < 0 && errno == EBADF) {
        char path[PROC_PATH_SIZE];
        result = setxattr(proc_path(fd, path), name, value, size, 0);
    }
    return result;
#elif defined(__APPLE__)
    return fsetxattr(fd, name, value, size, 0, 0);
#else
    (void)fd, (void)name, (void)value, (void)size;
    errno = ENOTSUP;
    return -1;
#endif
}

static int
remove_attribute(int fd, const char *name)
{
#if defined(__linux__)
    int result = fremovexattr(fd, name);
    if (result < 0 && errno == EBADF) {
        char path[PROC_PATH_SIZE];
        result = removexattr(proc_path(fd, path), name);
    }
    return result;
#elif defined(__APPLE__)
    return fremovexattr(fd, name, 0);
#else
    (void)fd, (void)name;
    errno = ENOTSUP;
    return -1;
#endif
}

/* The attributes of one file, gathered without the interpreter lock: for each, the name with
 * its NUL, the value's size as size_t, the value. */
typedef struct {
    char *bytes;
    size_t size, room;
} Attributes;

static char *
attributes_room(Attributes *all, size_t more)
{
    if (all->size + more > all->room) {
        size_t room = all->room * 2 + more;
        char *bytes = realloc(all->bytes, room);
        if (bytes == NULL) {
            return NULL;
        }
        all->bytes = bytes;
        all->room = room;
    }
    return all->bytes + all->size;
}

/* Returns 0 or an errno. File systems without attributes have none; an attribute that is gone
 * again or may not be read is left out. */
static int
gather_attributes(int fd, Attributes *all)
{
    enum { SMALL = 512, LARGEST = 1 << 20 };
    char small[SMALL];
    char *names = small;
    ssize_t size;
    int result = 0;
    RETRY(size, list_attributes(fd, small, sizeof small));
    for (size_t room = 65536; size < 0 && errno == ERANGE && room <= LARGEST; room *= 4) {
        char *larger = realloc(names == small ? NULL : names, room);
        if (larger == NULL) {
            result = ENOMEM;
            goto done;
        }
        names = larger;
        RETRY(size, list_attributes(fd, names, room));
    }
    if (size < 0) {
        int none = errno == ENOTSUP || errno == EOPNOTSUPP || errno == ENOSYS ||
                   errno == EPERM || errno == EACCES;
        result = none ? 0 : errno;
        goto done;
    }
    for (char *name = names; name < names + size; name += strlen(name) + 1) {
        size_t name_size = strlen(name) + 1;
        size_t room = 256;
        ssize_t value_size;
        for (;;) {
            char *place = attributes_room(all, name_size + sizeof(size_t) + room);
            if (place == NULL) {
                result = ENOMEM;
                goto done;
            }
            char *value = place + name_size + sizeof(size_t);
            RETRY(value_size, get_attribute(fd, name, value, room));
            if (value_size >= 0 || errno != ERANGE || room >= LARGEST) {
                break;
            }
            room = room * 16 + 4096;
        }
        if (value_size < 0) {
            continue;
        }
        char *place = all->bytes + all->size;
        size_t stored = (size_t)value_size;
        memcpy(place, name, name_size);
        memcpy(place + name_size, &stored, sizeof stored);
        all->size += name_size + sizeof stored + stored;
    }
done:
    if (names != small) {
        free(names);
    }
    return result;
}

/* A list of (name, value), ascending; None if there are none. Needs the interpreter lock. */
static PyObject *
build_attributes(const Attributes *all)
{
    if (all->size == 0) {
        Py_RETURN_NONE;
    }
    PyObject *list = PyList_New(0);
    for (size_t at = 0; list != NULL && at < all->size;) {
        const char *name = all->bytes + at;
        size_t name_size = strlen(name) + 1, value_size;
        memcpy(&value_size, name + name_size, sizeof value_size);
        const char *value = name + name_size + sizeof value_size;
        PyObject *pair = Py_BuildValue("(y#y#)", name, (Py_ssize_t)(name_size - 1), value,
                                       (Py_ssize_t)value_size);
        if (pair == NULL || PyList_Append(list, pair) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(pair);
        at += name_size + sizeof value_size + value_size;
    }
    if (list != NULL && PyList_Sort(list) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

#endif
