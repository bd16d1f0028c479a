/* packstone.chunking._kernel: the scheme of _cutting.h for Python, through the limited API
 * (setup.py defines Py_LIMITED_API).
 *
 * Never here: the scheme itself, I/O, global state. A Cutter does not change once made, so threads
 * may share one. Invariant: the buffer is held while the GIL is released, and `ends` has room for
 * every end there can be.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_scan_paths.h"

/* Below this many bytes a scan is done before another thread could have taken over. */
#define KEEP_GIL_BELOW ((size_t)64 << 10)
#define ENDS_ON_STACK 32

typedef struct {
    PyObject_HEAD
    struct cutter cutter;
} CutterObject;

static int take_index(PyObject *value, size_t *result)
{
    Py_ssize_t index = PyLong_AsSsize_t(value);
    if (index == -1 && PyErr_Occurred())
        return -1;
    if (index < 0) {
        PyErr_Format(PyExc_ValueError, "a position is negative: %zd", index);
        return -1;
    }
    *result = (size_t)index;
    return 0;
}

/* Open `object` and read the run's limits; on success the caller releases `buffer`. */
static int take_run(PyObject *object, PyObject *begin_object, PyObject *end_object,
                    Py_buffer *buffer, size_t *begin, size_t *end)
{
    if (take_index(begin_object, begin) || take_index(end_object, end))
        return -1;
    if (PyObject_GetBuffer(object, buffer, PyBUF_SIMPLE))
        return -1;
    if (*begin > *end || *end > (size_t)buffer->len) {
        PyErr_Format(PyExc_ValueError, "expected 0 <= begin <= end <= %zd, got begin %zu, end %zu",
                     buffer->len, *begin, *end);
        PyBuffer_Release(buffer);
        return -1;
    }
    return 0;
}

static PyObject *list_of_sizes(const size_t *sizes, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = PyLong_FromSize_t(sizes[i]);
        if (!item || PyList_SetItem(list, (Py_ssize_t)i, item)) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

PyDoc_STRVAR(cut_doc, "cut(buffer, begin, end, final) -> list of chunk ends; see Chunker.cut");

static PyObject *cutter_cut(CutterObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    const struct cutter *cutter = &self->cutter;
    size_t on_stack[ENDS_ON_STACK], *ends = on_stack, begin, end, room, count;
    PyObject *result = NULL;
    Py_buffer buffer;
    int final;

    if (nargs != 4) {
        PyErr_Format(PyExc_TypeError, "cut takes 4 arguments, got %zd", nargs);
        return NULL;
    }
    final = PyObject_IsTrue(args[3]);
    if (final < 0 || take_run(args[0], args[1], args[2], &buffer, &begin, &end))
        return NULL;
    room = (end - begin) / cutter->minimum + 2;
    if (room > ENDS_ON_STACK) {
        ends = PyMem_Malloc(room * sizeof *ends);
        if (!ends) {
            PyErr_NoMemory();
            goto done;
        }
    }
    if (end - begin < KEEP_GIL_BELOW) {
        count = cut_run(cutter, buffer.buf, begin, end, final, ends);
    } else {
        Py_BEGIN_ALLOW_THREADS
        count = cut_run(cutter, buffer.buf, begin, end, final, ends);
        Py_END_ALLOW_THREADS
    }
    result = list_of_sizes(ends, count);
done:
    if (ends != on_stack)
        PyMem_Free(ends);
    PyBuffer_Release(&buffer);
    return result;
}

PyDoc_STRVAR(keys_doc, "keys(buffer, positions, begin, end) -> list of keys; see Chunker.keys");

static PyObject *cutter_keys(CutterObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *positions, *result = NULL;
    size_t begin, end, position;
    Py_ssize_t count;
    Py_buffer buffer;

    if (nargs != 4) {
        PyErr_Format(PyExc_TypeError, "keys takes 4 arguments, got %zd", nargs);
        return NULL;
    }
    /* a list of our own: nothing that int() calls back into could shorten it */
    positions = PySequence_List(args[1]);
    if (!positions)
        return NULL;
    if (take_run(args[0], args[2], args[3], &buffer, &begin, &end)) {
        Py_DECREF(positions);
        return NULL;
    }
    count = PyList_Size(positions);
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *key = NULL;
        if (!take_index(PyList_GetItem(positions, i), &position)) {
            if (position < begin || position > end)
                PyErr_Format(PyExc_ValueError, "position %zu is not in the run %zu..%zu", position,
                             begin, end);
            else
                key = PyLong_FromUnsignedLongLong(
                    cut_key(&self->cutter, buffer.buf, begin, end, position));
        }
        if (!key || PyList_SetItem(result, i, key)) {
            Py_DECREF(result);
            result = NULL;
        }
    }
    PyBuffer_Release(&buffer);
    Py_DECREF(positions);
    return result;
}

/* Set the scan path to the one called `name`, or to the best if that is NULL. */
static int choose_path(struct cutter *cutter, const char *name)
{
    struct scan_path paths[3];
    int count = usable_paths(paths);

    for (int i = 0; i < count; i++) {
        if (!name || strcmp(name, paths[i].name) == 0) {
            cutter->scan = paths[i].scan;
            cutter->path = paths[i].name;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "kernel path '%.100s' is not available on this machine (%s%s%s%s%s)",
                 name, paths[0].name, count > 1 ? ", " : "", count > 1 ? paths[1].name : "",
                 count > 2 ? ", " : "", count > 2 ? paths[2].name : "");
    return -1;
}

static PyObject *cutter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"secret", "average", "path", NULL};
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    CutterObject *self = NULL;
    const char *path = NULL;
    Py_ssize_t average;
    Py_buffer secret;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*n|z:Cutter", names, &secret, &average, &path))
        return NULL;
    if (secret.len != SECRET_SIZE)
        PyErr_Format(PyExc_ValueError, "the secret has %zd bytes, expected %d", secret.len,
                     SECRET_SIZE);
    else if (average < (Py_ssize_t)SMALLEST_AVERAGE || average > (Py_ssize_t)LARGEST_AVERAGE ||
             (average & (average - 1)))
        PyErr_Format(PyExc_ValueError, "the average is %zd, expected a power of two from %zu to %zu",
                     average, SMALLEST_AVERAGE, LARGEST_AVERAGE);
    else
        self = (CutterObject *)allocate(type, 0);
    if (self) {
        prepare(&self->cutter, secret.buf, (size_t)average);
        if (choose_path(&self->cutter, path)) {
            Py_DECREF(self);
            self = NULL;
        }
    }
    PyBuffer_Release(&secret);
    return (PyObject *)self;
}

static void cutter_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type); /* an object of a heap type holds its type */
}

static PyObject *cutter_path(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((CutterObject *)self)->cutter.path);
}

/* The cast goes by way of void (*)(void) because METH_FASTCALL functions take other arguments. */
#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef cutter_methods[] = {
    {"cut", FASTCALL(cutter_cut), METH_FASTCALL, cut_doc},
    {"keys", FASTCALL(cutter_keys), METH_FASTCALL, keys_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef cutter_attributes[] = {
    {"path", cutter_path, NULL, "the name of the scan path in use", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(cutter_doc, "Cutter(secret, average, path=None)\n\nThe scheme with its parameters.");

static PyType_Slot cutter_slots[] = {
    {Py_tp_doc, (void *)cutter_doc},
    {Py_tp_new, (void *)cutter_new},
    {Py_tp_dealloc, (void *)cutter_dealloc},
    {Py_tp_methods, cutter_methods},
    {Py_tp_getset, cutter_attributes},
    {0, NULL},
};

static PyType_Spec cutter_spec = {
    .name = "packstone.chunking._kernel.Cutter",
    .basicsize = sizeof(CutterObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = cutter_slots,
};

static PyObject *kernel_siphash24(PyObject *module, PyObject *args)
{
    Py_buffer key, data;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*:siphash24", &key, &data))
        return NULL;
    if (key.len != 16)
        PyErr_Format(PyExc_ValueError, "the key has %zd bytes, expected 16", key.len);
    else
        result = PyLong_FromUnsignedLongLong(
            siphash24(siphash_key_from(key.buf), data.buf, (size_t)data.len));
    PyBuffer_Release(&key);
    PyBuffer_Release(&data);
    return result;
}

static PyObject *kernel_paths(PyObject *module, PyObject *unused)
{
    struct scan_path paths[3];
    int count = usable_paths(paths);
    PyObject *list = PyList_New(count);

    (void)module;
    (void)unused;
    for (int i = 0; list && i < count; i++) {
        PyObject *name = PyUnicode_FromString(paths[i].name);
        if (!name || PyList_SetItem(list, i, name)) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static PyMethodDef kernel_functions[] = {
    {"siphash24", kernel_siphash24, METH_VARARGS,
     "siphash24(key, data) -> int\n\nReturn SipHash-2-4 of data under a key of 16 bytes."},
    {"paths", kernel_paths, METH_NOARGS,
     "paths() -> list of str\n\nReturn the scan paths this machine can take, best first."},
    {NULL, NULL, 0, NULL},
};

static int kernel_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &cutter_spec, NULL);
    int failed;

    if (!type)
        return -1;
    failed = PyModule_AddObjectRef(module, "Cutter", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot kernel_slots[] = {
    {Py_mod_exec, (void *)kernel_exec},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef kernel_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "packstone.chunking._kernel",
    .m_doc = "Content-defined cutting (docs/format.md section 5) in C.",
    .m_size = 0,
    .m_methods = kernel_functions,
    .m_slots = kernel_slots,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&kernel_module);
}
