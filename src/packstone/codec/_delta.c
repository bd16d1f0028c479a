/* packstone.codec._delta: what a chunk shares with its bases, and back (docs/format.md section 4).
 *
 * Never here: compression, I/O, global state. Invariants: every buffer is held while the GIL is
 * released; decode allocates and writes only after all instructions were found to fit, and takes
 * them from bytes objects, which nobody changes meanwhile; both directions take time linear in
 * the sizes, whatever the bytes are.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_delta_finding.h"

/* Raise what went wrong without the GIL. */
static void raise_problem(const char *problem)
{
    if (problem == no_memory)
        PyErr_NoMemory();
    else
        PyErr_SetString(PyExc_ValueError, problem);
}

struct held {
    Py_buffer buffers[MAX_BASES];
    struct bases bases;
};

static void release(struct held *held)
{
    for (int i = 0; i < held->bases.count; i++)
        PyBuffer_Release(&held->buffers[i]);
}

/* Hold the buffers of a sequence of bases; on success the caller releases them. */
static int hold(PyObject *sequence, struct held *held)
{
    PyObject *list = PySequence_Tuple(sequence);
    Py_ssize_t count;

    if (!list)
        return -1;
    count = PyTuple_Size(list);
    held->bases.count = 0;
    held->bases.size = 0;
    if (count < 1 || count > MAX_BASES) {
        PyErr_Format(PyExc_ValueError, "expected 1 to %d bases, got %zd", MAX_BASES, count);
        Py_DECREF(list);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        Py_buffer *buffer = &held->buffers[i];
        if (PyObject_GetBuffer(PyTuple_GetItem(list, i), buffer, PyBUF_SIMPLE))
            break;
        held->bases.count++;
        held->bases.start[i] = buffer->buf;
        held->bases.length[i] = (size_t)buffer->len;
        if ((size_t)buffer->len > MAX_SIZE) {
            PyErr_Format(PyExc_ValueError, "base of %zd bytes is above %zu", buffer->len, MAX_SIZE);
            break;
        }
        held->bases.size += (size_t)buffer->len;
    }
    Py_DECREF(list); /* a buffer holds its object */
    if (PyErr_Occurred()) {
        release(held);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(encode_doc,
"encode(chunk, bases) -> (body, copied)\n\n"
"Return the instructions and literals that make chunk from 1 to 3 bases, and how many bytes\n"
"come from each base. Raises ValueError for a chunk or base above 64 MiB.");

static PyObject *delta_encode(PyObject *module, PyObject *args)
{
    PyObject *sequence, *body = NULL, *copied = NULL, *result = NULL;
    struct edits edits = {NULL, 0, 0};
    const char *problem;
    unsigned char *to;
    struct held held;
    Py_buffer chunk;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*O:encode", &chunk, &sequence))
        return NULL;
    if ((size_t)chunk.len > MAX_SIZE) {
        PyErr_Format(PyExc_ValueError, "chunk of %zd bytes is above %zu", chunk.len, MAX_SIZE);
        goto without_bases;
    }
    if (hold(sequence, &held))
        goto without_bases;
    Py_BEGIN_ALLOW_THREADS
    problem = find_edits(chunk.buf, (size_t)chunk.len, &held.bases, &edits);
    Py_END_ALLOW_THREADS
    if (problem) {
        raise_problem(problem);
        goto done;
    }
    body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)body_size(&edits));
    copied = PyTuple_New(held.bases.count);
    if (!body || !copied)
        goto done;
    to = (unsigned char *)PyBytes_AsString(body); /* nobody else has seen it yet */
    Py_BEGIN_ALLOW_THREADS
    write_body(&edits, chunk.buf, to);
    Py_END_ALLOW_THREADS
    for (int i = 0; i < held.bases.count; i++) {
        PyObject *size = PyLong_FromSize_t(copied_from(&edits, &held.bases, i));
        if (!size || PyTuple_SetItem(copied, i, size))
            goto done;
    }
    result = PyTuple_Pack(2, body, copied);
done:
    Py_XDECREF(body);
    Py_XDECREF(copied);
    free(edits.list);
    release(&held);
without_bases:
    PyBuffer_Release(&chunk);
    return result;
}

PyDoc_STRVAR(decode_doc,
"decode(body, bases, raw_size) -> bytes\n\n"
"Return the chunk that a body makes from its bases. Raises ValueError unless all of the body\n"
"is used and gives exactly raw_size bytes; nothing is allocated before that is known.");

static PyObject *delta_decode(PyObject *module, PyObject *args)
{
    PyObject *body, *sequence, *result = NULL;
    struct layout layout;
    const char *problem;
    Py_ssize_t raw_size;
    struct held held;
    size_t size;
    const unsigned char *from;

    (void)module;
    if (!PyArg_ParseTuple(args, "SOn:decode", &body, &sequence, &raw_size))
        return NULL;
    if (raw_size < 0 || (size_t)raw_size > MAX_SIZE) {
        PyErr_Format(PyExc_ValueError, "chunk of %zd bytes is outside 0..%zu", raw_size, MAX_SIZE);
        return NULL;
    }
    if (hold(sequence, &held))
        return NULL;
    from = (const unsigned char *)PyBytes_AsString(body); /* the caller's arguments keep it */
    size = (size_t)PyBytes_Size(body);
    Py_BEGIN_ALLOW_THREADS
    problem = check_body(from, size, held.bases.size, (size_t)raw_size, &layout);
    Py_END_ALLOW_THREADS
    if (problem)
        raise_problem(problem);
    else
        result = PyBytes_FromStringAndSize(NULL, raw_size);
    if (result) {
        unsigned char *to = (unsigned char *)PyBytes_AsString(result);
        Py_BEGIN_ALLOW_THREADS
        apply_body(&layout, &held.bases, to);
        Py_END_ALLOW_THREADS
    }
    release(&held);
    return result;
}

static PyMethodDef delta_functions[] = {
    {"encode", delta_encode, METH_VARARGS, encode_doc},
    {"decode", delta_decode, METH_VARARGS, decode_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot delta_slots[] = {
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef delta_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "packstone.codec._delta",
    .m_doc = "Copy and insert instructions of deltas (docs/format.md section 4) in C.",
    .m_size = 0,
    .m_methods = delta_functions,
    .m_slots = delta_slots,
};

PyMODINIT_FUNC PyInit__delta(void)
{
    return PyModuleDef_Init(&delta_module);
}
