/* packstone.filesystem._scan: batches of system calls on the user's files.
 *
 * Millions of small files cost what is done per file; here that is system calls and a handful
 * of objects. The interpreter lock is released around all of them, and calls that a signal
 * interrupted are repeated. Names are bytes; nothing is followed; nothing is mapped.
 */
#define PY_SSIZE_T_CLEAN
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <Python.h>

#include "_attributes.h"
#include "_listing.h"
#include "_platform.h"
#include "_reading.h"
#include "_writing.h"

static PyObject *
raise_errno(int error)
{
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *
scan_list_names(PyObject *module, PyObject *args)
{
    int fd, error;
    Names names = {NULL, 0, 0, NULL, 0, 0};
    (void)module;
    if (!PyArg_ParseTuple(args, "i:list_names", &fd)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = collect_names(fd, &names);
    Py_END_ALLOW_THREADS
    PyObject *result = error ? raise_errno(error) : build_names(&names);
    free_names(&names);
    return result;
}

static PyObject *
scan_open_directory(PyObject *module, PyObject *args)
{
    int parent, fd, error = 0, quiet = 1;
    const char *name;
    struct stat status;
    Names names = {NULL, 0, 0, NULL, 0, 0};
    (void)module;
    if (!PyArg_ParseTuple(args, "iy:open_directory", &parent, &name)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    fd = open_source(parent, name, O_DIRECTORY, &quiet);
    if (fd < 0 || fstat(fd, &status) < 0) {
        error = errno;
    }
    else {
        error = collect_names(fd, &names);
    }
    Py_END_ALLOW_THREADS

    PyObject *result = NULL;
    if (error) {
        raise_errno(error);
    }
    else {
        Stat stat;
        Recent recent[RECENT_COUNT] = {{NULL, 0}};
        take_stat(&stat, &status);
        PyObject *row = build_stat(&stat, recent);
        PyObject *list = build_names(&names);
        forget_recent(recent);
        if (row != NULL && list != NULL) {
            result = Py_BuildValue("(iOO)", fd, row, list);
        }
        Py_XDECREF(row);
        Py_XDECREF(list);
    }
    if (result == NULL && fd >= 0) {
        close(fd);
    }
    free_names(&names);
    return result;
}

static PyObject *
scan_stat_names(PyObject *module, PyObject *args)
{
    int fd;
    PyObject *names;
    (void)module;
    if (!PyArg_ParseTuple(args, "iO:stat_names", &fd, &names)) {
        return NULL;
    }
    return stat_names(fd, names, NULL, NULL);
}

static PyObject *
scan_stat_slice(PyObject *module, PyObject *args)
{
    int fd;
    PyObject *names;
    (void)module;
    if (!PyArg_ParseTuple(args, "iO:stat_slice", &fd, &names)) {
        return NULL;
    }
    PyObject *result = NULL, *rows = NULL;
    PyObject *directories = PyList_New(0), *failures = PyList_New(0);
    if (directories != NULL && failures != NULL) {
        rows = stat_names(fd, names, directories, failures);
        if (rows != NULL) {
            result = PyTuple_Pack(3, rows, directories, failures);
        }
    }
    Py_XDECREF(rows);
    Py_XDECREF(directories);
    Py_XDECREF(failures);
    return result;
}

static PyObject *
scan_read_files(PyObject *module, PyObject *args)
{
    PyObject *items;
    Py_ssize_t limit;
    (void)module;
    if (!PyArg_ParseTuple(args, "On:read_files", &items, &limit)) {
        return NULL;
    }
    return read_files(items, limit);
}

static PyObject *
scan_write_files(PyObject *module, PyObject *args)
{
    PyObject *items;
    const char *prefix;
    int owner, replace, nameless = 1, sync = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "Oypp|pp:write_files", &items, &prefix, &owner, &replace,
                          &nameless, &sync)) {
        return NULL;
    }
    return write_files(items, prefix, owner, replace, nameless, sync);
}

static PyObject *
scan_rename_exclusively(PyObject *module, PyObject *args)
{
    int fd, result;
    const char *old, *name;
    (void)module;
    if (!PyArg_ParseTuple(args, "iyy:rename_exclusively", &fd, &old, &name)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    result = rename_exclusively(fd, old, name);
    Py_END_ALLOW_THREADS
    if (result < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *
scan_punch_hole(PyObject *module, PyObject *args)
{
    int fd, result;
    long long offset, size;
    (void)module;
    if (!PyArg_ParseTuple(args, "iLL:punch_hole", &fd, &offset, &size)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
#if defined(__linux__) && defined(FALLOC_FL_PUNCH_HOLE)
    RETRY(result, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                            (off_t)size));
#else
    (void)fd, (void)offset, (void)size;
    result = -1;
    errno = ENOTSUP;
#endif
    Py_END_ALLOW_THREADS
    if (result < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *
scan_set_owner(PyObject *module, PyObject *args)
{
    int fd, lost = 0;
    unsigned long long uid, gid;
    struct stat status;
    (void)module;
    if (!PyArg_ParseTuple(args, "iKK:set_owner", &fd, &uid, &gid)) {
        return NULL;
    }
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = fstat(fd, &status);
    if (result == 0) {
        uint32_t has_uid = (uint32_t)status.st_uid, has_gid = (uint32_t)status.st_gid;
        lost = apply_owner(fd, owner_number(uid), owner_number(gid), &has_uid, &has_gid);
    }
    Py_END_ALLOW_THREADS
    return result < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(lost);
}

static PyObject *
scan_set_mode(PyObject *module, PyObject *args)
{
    int fd, lost = 0, result;
    unsigned long long mode, uid, gid;
    PyObject *mtime;
    int64_t mtime_ns;
    struct stat status;
    (void)module;
    if (!PyArg_ParseTuple(args, "iKKKO:set_mode", &fd, &mode, &uid, &gid, &mtime) ||
        time_argument(mtime, &mtime_ns) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    result = fstat(fd, &status);
    if (result == 0) {
        lost = apply_mode(fd, (uint32_t)mode, mtime_ns,
                          (uint32_t)status.st_uid == owner_number(uid),
                          (uint32_t)status.st_gid == owner_number(gid));
    }
    Py_END_ALLOW_THREADS
    return result < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(lost);
}

static PyObject *
scan_read_xattrs(PyObject *module, PyObject *args)
{
    int fd, error;
    Attributes all = {NULL, 0, 0};
    (void)module;
    if (!PyArg_ParseTuple(args, "i:read_xattrs", &fd)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = gather_attributes(fd, &all);
    Py_END_ALLOW_THREADS
    PyObject *result = error ? raise_errno(error) : build_attributes(&all);
    free(all.bytes);
    return result;
}

static PyObject *
scan_set_xattr(PyObject *module, PyObject *args)
{
    int fd, result;
    const char *name;
    Py_buffer value;
    (void)module;
    if (!PyArg_ParseTuple(args, "iyy*:set_xattr", &fd, &name, &value)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    RETRY(result, set_attribute(fd, name, value.buf, (size_t)value.len));
    Py_END_ALLOW_THREADS
    int error = errno;
    PyBuffer_Release(&value);
    if (result < 0) {
        return raise_errno(error);
    }
    Py_RETURN_NONE;
}

static PyObject *
scan_remove_xattr(PyObject *module, PyObject *args)
{
    int fd, result;
    const char *name;
    (void)module;
    if (!PyArg_ParseTuple(args, "iy:remove_xattr", &fd, &name)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    RETRY(result, remove_attribute(fd, name));
    Py_END_ALLOW_THREADS
    if (result < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"list_names", scan_list_names, METH_VARARGS,
     "list_names(fd) -> list[bytes]: all names but . and .., ascending; OSError if any is lost."},
    {"open_directory", scan_open_directory, METH_VARARGS,
     "open_directory(parent_fd, name) -> (fd, stat, names): open, fstat and list a directory."},
    {"stat_names", scan_stat_names, METH_VARARGS,
     "stat_names(fd, names) -> list: for each an lstat tuple as model.Stat, or an errno."},
    {"stat_slice", scan_stat_slice, METH_VARARGS,
     "stat_slice(fd, names) -> (rows, directories, failures): the rows of stat_names, and the\n"
     "positions of directories and of errnos among them."},
    {"read_files", scan_read_files, METH_VARARGS,
     "read_files([(fd, name, size)], limit) -> list: for each (stat, data, stable, xattrs) or\n"
     "an errno."},
    {"write_files", scan_write_files, METH_VARARGS,
     "write_files([(fd, name, data, mode, uid, gid, mtime_ns)], prefix, owner, replace,\n"
     "nameless=True, sync=False) -> list: for each the bits of what was lost, or -errno if there\n"
     "is no file. Files get their name when they are whole; before, they have none if possible,\n"
     "else one that begins with prefix. With sync, one that takes the place of another is on the\n"
     "disk before it does."},
    {"rename_exclusively", scan_rename_exclusively, METH_VARARGS,
     "rename_exclusively(fd, old, new): FileExistsError if `new` is there."},
    {"punch_hole", scan_punch_hole, METH_VARARGS,
     "punch_hole(fd, offset, size): make these bytes zeros that take no room, where that works."},
    {"set_owner", scan_set_owner, METH_VARARGS,
     "set_owner(fd, uid, gid) -> bits of what was lost."},
    {"set_mode", scan_set_mode, METH_VARARGS,
     "set_mode(fd, mode, uid, gid, mtime_ns) -> bits of what was lost. Set-id bits stay only if\n"
     "the file belongs to `uid` and `gid`."},
    {"read_xattrs", scan_read_xattrs, METH_VARARGS,
     "read_xattrs(fd) -> list[(name, value)] ascending, or None if there are none."},
    {"set_xattr", scan_set_xattr, METH_VARARGS, "set_xattr(fd, name, value)"},
    {"remove_xattr", scan_remove_xattr, METH_VARARGS, "remove_xattr(fd, name)"},
    {NULL, NULL, 0, NULL},
};

static int
add_constants(PyObject *module)
{
    return PyModule_AddIntConstant(module, "OWNER_LOST", OWNER_LOST) < 0 ||
                   PyModule_AddIntConstant(module, "MODE_LOST", MODE_LOST) < 0 ||
                   PyModule_AddIntConstant(module, "TIME_LOST", TIME_LOST) < 0 ||
                   PyModule_AddIntConstant(module, "SETUID_LOST", SETUID_LOST) < 0
               ? -1
               : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_constants},
#if defined(Py_mod_gil)
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "packstone.filesystem._scan",
    "Batches of system calls on the user's files, without the interpreter lock.", 0, methods,
    slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__scan(void)
{
    return PyModuleDef_Init(&definition);
}
