/* Many small files read in one call. */
#ifndef PACKSTONE_READING_H
#define PACKSTONE_READING_H

#include <Python.h>

#include "_attributes.h"
#include "_listing.h"
#include "_platform.h"

typedef struct {
    int directory;
    const char *name;
    PyObject *data;  /* bytes of the expected size, filled in place */
    char *into;
    Py_ssize_t room; /* of `into` */
    Py_ssize_t got;  /* of it used */
    char *excess;    /* what the file holds beyond `room` */
    Py_ssize_t excess_size;
    Stat stat;       /* before the first byte was read */
    Attributes attributes;
    int stable;
    int error;
} Reading;

/* Read what lies beyond the expected size, up to `limit` bytes of file in all; `first` is the
 * byte that showed there is more. Returns 1 at the end of the file, 0 at the limit, -1. */
static int
read_excess(int fd, Reading *file, Py_ssize_t limit, char first)
{
    Py_ssize_t room = 0;
    char pending = first;
    int has_pending = 1;
    for (;;) {
        Py_ssize_t allowed = limit - file->got - file->excess_size;
        if (allowed <= 0) {
            ssize_t probed = 0;
            if (!has_pending) {
                RETRY(probed, read(fd, &pending, 1));
            }
            return probed < 0 ? -1 : !has_pending && probed == 0;
        }
        if (room - file->excess_size < 2) {
            room = room * 2 + 65536;
            char *larger = realloc(file->excess, (size_t)room);
            if (larger == NULL) {
                errno = ENOMEM;
                return -1;
            }
            file->excess = larger;
        }
        if (has_pending) {
            file->excess[file->excess_size++] = pending;
            has_pending = 0;
            continue;
        }
        Py_ssize_t free_size = room - file->excess_size;
        ssize_t size;
        RETRY(size, read(fd, file->excess + file->excess_size,
                         (size_t)(free_size < allowed ? free_size : allowed)));
        if (size <= 0) {
            return size == 0 ? 1 : -1;
        }
        file->excess_size += size;
    }
}

/* Returns 1 when the end of the file was reached, 0 at the limit, -1 with errno. */
static int
read_content(int fd, Reading *file, Py_ssize_t limit)
{
    for (;;) {
        char probe;
        Py_ssize_t left = file->room - file->got;
        struct iovec to[2] = {{file->into + file->got, (size_t)left}, {&probe, 1}};
        ssize_t size;
        /* One byte more than expected: a short count then saves the call that returns 0. */
        RETRY(size, readv(fd, to, 2));
        if (size <= 0) {
            return size == 0 ? 1 : -1;
        }
        if (size > left) {
            file->got = file->room;
            return read_excess(fd, file, limit, probe);
        }
        file->got += size;
        if (file->got == file->stat.size) {
            return 1;
        }
    }
}

static int
same_content(const Stat *a, const Stat *b)
{
    return a->size == b->size && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns &&
           a->inode == b->inode && a->device == b->device;
}

static void
read_file(Reading *file, Py_ssize_t limit, int *quiet)
{
    struct stat status;
    Stat after;
    int fd = open_source(file->directory, file->name, 0, quiet);
    if (fd < 0) {
        file->error = errno;
        return;
    }
    if (fstat(fd, &status) < 0) {
        goto failed;
    }
    if (!S_ISREG(status.st_mode)) { /* replaced since it was listed */
        errno = ELOOP;
        goto failed;
    }
    take_stat(&file->stat, &status);
    int complete = read_content(fd, file, limit);
    if (complete < 0) {
        goto failed;
    }
    errno = gather_attributes(fd, &file->attributes);
    if (errno) {
        goto failed;
    }
    /* last: whatever changed until now, attributes too, shows in ctime */
    if (fstat(fd, &status) < 0) {
        goto failed;
    }
    take_stat(&after, &status);
    file->stable = complete && same_content(&file->stat, &after) &&
                   file->got + file->excess_size == after.size;
    close(fd);
    return;
failed:
    file->error = errno;
    close(fd);
}

/* The bytes read: the prepared object if it is exactly full, else a copy. */
static PyObject *
take_data(Reading *file)
{
    if (file->excess_size == 0 && file->got == file->room && file->data != NULL) {
        PyObject *data = file->data;
        file->data = NULL;
        return data;
    }
    PyObject *data = PyBytes_FromStringAndSize(NULL, file->got + file->excess_size);
    if (data != NULL) {
        char *to = PyBytes_AsString(data);
        if (file->got > 0) {
            memcpy(to, file->into, (size_t)file->got);
        }
        if (file->excess_size > 0) {
            memcpy(to + file->got, file->excess, (size_t)file->excess_size);
        }
    }
    return data;
}

static PyObject *
build_reading(Reading *file, Recent *recent)
{
    if (file->error) {
        return PyLong_FromLong(file->error);
    }
    PyObject *row = PyTuple_New(4);
    PyObject *stat = build_stat(&file->stat, recent);
    PyObject *data = take_data(file);
    PyObject *attributes = build_attributes(&file->attributes);
    if (row == NULL || stat == NULL || data == NULL || attributes == NULL) {
        Py_XDECREF(row);
        Py_XDECREF(stat);
        Py_XDECREF(data);
        Py_XDECREF(attributes);
        return NULL;
    }
    PyTuple_SetItem(row, 0, stat);
    PyTuple_SetItem(row, 1, data);
    PyTuple_SetItem(row, 2, PyBool_FromLong(file->stable));
    PyTuple_SetItem(row, 3, attributes);
    return row;
}

static int
prepare_reading(Reading *file, PyObject *item, Py_ssize_t limit)
{
    PyObject *name;
    Py_ssize_t expected;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "an item is (descriptor, name, size)");
        return -1;
    }
    if (!PyArg_ParseTuple(item, "iSn", &file->directory, &name, &expected)) {
        return -1;
    }
    char *text;
    if (PyBytes_AsStringAndSize(name, &text, NULL) < 0) {
        return -1;
    }
    file->name = text;
    file->room = expected < 0 ? 0 : expected < limit ? expected : limit;
    file->data = PyBytes_FromStringAndSize(NULL, file->room);
    if (file->data == NULL) {
        return -1;
    }
    file->into = PyBytes_AsString(file->data);
    return 0;
}

static PyObject *
read_files(PyObject *items, Py_ssize_t limit)
{
    Recent recent[RECENT_COUNT] = {{NULL, 0}};
    PyObject *rows = NULL;
    PyObject *held = PySequence_Tuple(items);
    if (held == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(held);
    Reading *files = calloc((size_t)count + 1, sizeof *files);
    if (files == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (prepare_reading(&files[i], PyTuple_GetItem(held, i), limit) < 0) {
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    int quiet = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        read_file(&files[i], limit, &quiet);
    }
    Py_END_ALLOW_THREADS

    rows = PyList_New(count);
    for (Py_ssize_t i = 0; rows != NULL && i < count; i++) {
        PyObject *row = build_reading(&files[i], recent);
        if (row == NULL || PyList_SetItem(rows, i, row) < 0) {
            Py_CLEAR(rows);
        }
    }
done:
    forget_recent(recent);
    for (Py_ssize_t i = 0; files != NULL && i < count; i++) {
        Py_XDECREF(files[i].data);
        free(files[i].excess);
        free(files[i].attributes.bytes);
    }
    free(files);
    Py_DECREF(held);
    return rows;
}

#endif
