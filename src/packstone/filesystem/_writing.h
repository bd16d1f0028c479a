/* Many small files written in one call: content, attributes, and a name last of all. */
#ifndef PACKSTONE_WRITING_H
#define PACKSTONE_WRITING_H

#include <Python.h>

#include "_attributes.h"
#include "_platform.h"

typedef struct {
    int directory;
    const char *name;
    Py_ssize_t name_size;
    Py_buffer data;
    uint32_t mode, uid, gid;
    int64_t mtime_ns;
    int result; /* bits of what was lost, or -errno: there is no file */
} Writing;

/* What a batch learns on its way, so that it asks once. */
typedef struct {
    int directory;     /* files made here belong to `uid` and `gid`; -1: not known yet */
    uint32_t uid, gid;
    int nameless;      /* O_TMPFILE and linkat work, as far as is known */
    int sync;          /* what takes the place of a file is on the disk before it does */
    int by_descriptor; /* linkat takes the descriptor itself, else its name in /proc */
} Learnt;

/* Give `old` its final name unless that exists already. The kernel does it in one step where
 * the file system can; elsewhere an empty file takes the name, exclusively, and is replaced. */
static int
rename_exclusively(int directory, const char *old, const char *name)
{
    int result;
#if defined(__linux__) && defined(SYS_renameat2)
    const unsigned int noreplace = 1; /* RENAME_NOREPLACE, missing in older headers */
    RETRY(result, (int)syscall(SYS_renameat2, directory, old, directory, name, noreplace));
    if (result == 0 || (errno != ENOSYS && errno != EINVAL)) {
        return result;
    }
#elif defined(__APPLE__) && defined(RENAME_EXCL)
    RETRY(result, renameatx_np(directory, old, directory, name, RENAME_EXCL));
    if (result == 0 || (errno != ENOTSUP && errno != ENOSYS && errno != EINVAL)) {
        return result;
    }
#endif
    int fd;
    RETRY(fd, openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0));
    if (fd < 0) {
        return -1;
    }
    close(fd);
    RETRY(result, renameat(directory, old, directory, name));
    if (result < 0) {
        int error = errno;
        unlinkat(directory, name, 0);
        errno = error;
    }
    return result;
}

static int
write_content(int fd, const char *data, Py_ssize_t size)
{
    while (size > 0) {
        ssize_t written;
        RETRY(written, write(fd, data, (size_t)size));
        if (written < 0) {
            return -1;
        }
        data += written;
        size -= written;
    }
    return 0;
}

/* Returns bits of what was lost, or -1 with errno. */
static int
apply_attributes(int fd, const Writing *file, int owner, Learnt *learnt)
{
    int lost = 0;
    uint32_t has_uid = file->uid, has_gid = file->gid;
    if (owner || (file->mode & (S_ISUID | S_ISGID))) {
        if (learnt->directory != file->directory) {
            struct stat status;
            if (fstat(fd, &status) < 0) {
                return -1;
            }
            learnt->directory = file->directory;
            learnt->uid = (uint32_t)status.st_uid;
            learnt->gid = (uint32_t)status.st_gid;
        }
        has_uid = learnt->uid;
        has_gid = learnt->gid;
    }
    if (owner) {
        lost |= apply_owner(fd, file->uid, file->gid, &has_uid, &has_gid);
    }
    /* after the owner: changing it clears the set-id bits */
    return lost | apply_mode(fd, file->mode, file->mtime_ns, has_uid == file->uid,
                             has_gid == file->gid);
}

/* Content and attributes of a file that is open and not seen by anybody yet. */
static int
fill_file(int fd, Writing *file, int owner, Learnt *learnt)
{
    if (write_content(fd, file->data.buf, file->data.len) < 0) {
        return -1;
    }
    file->result = apply_attributes(fd, file, owner, learnt);
    return file->result < 0 ? -1 : 0;
}

/* Content that is to take the place of other content must be on the disk first: after a power
 * cut the name leads to one or the other, whole. Never tried again when it fails. */
static int
sync_content(int fd)
{
#if defined(__APPLE__)
    return fsync(fd);
#else
    return fdatasync(fd);
#endif
}

static int
is_there(int directory, const char *name)
{
    struct stat status;
    return fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Close; a full quota may show only now. After EINTR the descriptor is closed all the same. */
static int
close_written(int fd)
{
    return close(fd) < 0 && errno != EINTR ? -1 : 0;
}

#if defined(__linux__) && defined(O_TMPFILE)

static int
link_descriptor(int fd, int directory, const char *name, Learnt *learnt)
{
    int result;
    if (learnt->by_descriptor) {
        RETRY(result, linkat(fd, "", directory, name, AT_EMPTY_PATH));
        if (result == 0 || errno == EEXIST) {
            return result;
        }
        learnt->by_descriptor = 0; /* older kernels want a capability for that */
    }
    char path[PROC_PATH_SIZE];
    RETRY(result, linkat(AT_FDCWD, proc_path(fd, path), directory, name, AT_SYMLINK_FOLLOW));
    return result;
}

/* Write a file that has no name until it is whole: nothing is left behind by a crash, and one
 * change of the directory is spared (a third of the time on ext4). Returns 1 if this cannot be
 * done here, 0 if it was tried: `file->result` says how it went. */
static int
write_nameless(Writing *file, const char *temporary, int owner, int replace, Learnt *learnt)
{
    int fd, result;
    RETRY(fd, openat(file->directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
    if (fd < 0) {
        return 1; /* whatever the reason, with a name it shows again or is gone */
    }
    const char *name = file->name;
    result = fill_file(fd, file, owner, learnt);
    if (result == 0) {
        result = link_descriptor(fd, file->directory, name, learnt);
        if (result < 0 && errno == EEXIST && replace) {
            name = temporary;
            result = learnt->sync ? sync_content(fd) : 0;
            if (result == 0) {
                result = link_descriptor(fd, file->directory, name, learnt);
            }
            else {
                file->result = -errno;
                close(fd);
                return 0;
            }
        }
        if (result < 0 && errno != EEXIST) {
            close(fd);
            return 1;
        }
    }
    if (result < 0) {
        file->result = -errno;
        close(fd);
        return 0;
    }
    result = close_written(fd);
    if (result == 0 && name == temporary) {
        RETRY(result, renameat(file->directory, temporary, file->directory, file->name));
    }
    if (result < 0) {
        file->result = -errno;
        unlinkat(file->directory, name, 0);
    }
    return 0;
}

#else

static int
write_nameless(Writing *file, const char *temporary, int owner, int replace, Learnt *learnt)
{
    (void)file, (void)temporary, (void)owner, (void)replace, (void)learnt;
    return 1;
}

#endif

static void
write_file(Writing *file, const char *temporary, int owner, int replace, Learnt *learnt)
{
    int fd, result;
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    if (!is_entry_name(file->name, (size_t)file->name_size)) {
        file->result = -EINVAL;
        return;
    }
    if (learnt->nameless) {
        if (write_nameless(file, temporary, owner, replace, learnt) == 0) {
            return;
        }
        learnt->nameless = 0;
    }
    RETRY(fd, openat(file->directory, temporary, flags, 0600));
    if (fd < 0) {
        file->result = -errno;
        return;
    }
    result = fill_file(fd, file, owner, learnt);
    if (result == 0 && replace && learnt->sync && is_there(file->directory, file->name)) {
        result = sync_content(fd);
    }
    if (result < 0) {
        file->result = -errno;
        close(fd);
        unlinkat(file->directory, temporary, 0);
        return;
    }
    result = close_written(fd);
    if (result == 0 && replace) {
        RETRY(result, renameat(file->directory, temporary, file->directory, file->name));
    }
    else if (result == 0) {
        result = rename_exclusively(file->directory, temporary, file->name);
    }
    if (result < 0) {
        file->result = -errno;
        unlinkat(file->directory, temporary, 0);
    }
}

/* A snapshot may claim any number; one outside int64 is clamped, as when reading. */
static int
time_argument(PyObject *object, int64_t *ns)
{
    int overflow;
    *ns = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow) {
        *ns = overflow > 0 ? INT64_MAX : INT64_MIN;
    }
    return *ns == -1 && PyErr_Occurred() ? -1 : 0;
}

static int
prepare_writing(Writing *file, PyObject *item)
{
    PyObject *name, *data, *mtime_ns;
    unsigned long long mode, uid, gid;
    char *text;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError,
                        "an item is (descriptor, name, data, mode, uid, gid, mtime_ns)");
        return -1;
    }
    if (!PyArg_ParseTuple(item, "iSOKKKO", &file->directory, &name, &data, &mode, &uid, &gid,
                          &mtime_ns) ||
        time_argument(mtime_ns, &file->mtime_ns) < 0 ||
        PyBytes_AsStringAndSize(name, &text, &file->name_size) < 0 ||
        PyObject_GetBuffer(data, &file->data, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    file->name = text;
    file->mode = (uint32_t)mode;
    file->uid = owner_number(uid);
    file->gid = owner_number(gid);
    return 0;
}

static PyObject *
write_files(PyObject *items, const char *prefix, int owner, int replace, int nameless, int sync)
{
    PyObject *results = NULL;
    Py_ssize_t prepared = 0;
    PyObject *held = PySequence_Tuple(items);
    if (held == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(held);
    size_t room = strlen(prefix) + 24;
    char *temporary = malloc(room);
    Writing *files = calloc((size_t)count + 1, sizeof *files);
    if (files == NULL || temporary == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (; prepared < count; prepared++) {
        if (prepare_writing(&files[prepared], PyTuple_GetItem(held, prepared)) < 0) {
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    Learnt learnt = {-1, 0, 0, nameless, sync, 1};
    for (Py_ssize_t i = 0; i < count; i++) {
        snprintf(temporary, room, "%s%zu", prefix, (size_t)i);
        write_file(&files[i], temporary, owner, replace, &learnt);
    }
    Py_END_ALLOW_THREADS

    results = PyList_New(count);
    for (Py_ssize_t i = 0; results != NULL && i < count; i++) {
        PyObject *result = PyLong_FromLong(files[i].result);
        if (result == NULL || PyList_SetItem(results, i, result) < 0) {
            Py_CLEAR(results);
        }
    }
done:
    for (Py_ssize_t i = 0; i < prepared; i++) {
        PyBuffer_Release(&files[i].data);
    }
    free(files);
    free(temporary);
    Py_DECREF(held);
    return results;
}

#endif
