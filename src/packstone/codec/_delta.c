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
#include "_delta_pieces.h"

/* More pieces than one for each so many bytes are not worth it: the bytes are copied then. */
#define PIECE_SIZE ((size_t)128)
#define FEW_PIECES ((size_t)64)

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

/* --- chunks in pieces --- */

typedef struct {
    PyObject_HEAD
    struct piece *list;
    size_t count, size;
    PyObject *owners; /* of what the pieces point into: a tuple of bytes and Pieces */
} Pieces;

struct state {
    PyTypeObject *pieces_type;
};

static void pieces_dealloc(PyObject *self)
{
    Pieces *pieces = (Pieces *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release_memory = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyMem_Free(pieces->list);
    Py_XDECREF(pieces->owners); /* bases of bases: as deep as deltas may be */
    release_memory(self);
    Py_DECREF(type);
}

static Py_ssize_t pieces_length(PyObject *self)
{
    return (Py_ssize_t)((Pieces *)self)->size;
}

PyDoc_STRVAR(pieces_tobytes_doc, "tobytes() -> bytes\n\nReturn the chunk in one piece.");

static PyObject *pieces_tobytes(PyObject *self, PyObject *ignored)
{
    Pieces *pieces = (Pieces *)self;
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)pieces->size);

    (void)ignored;
    if (result) {
        unsigned char *to = (unsigned char *)PyBytes_AsString(result);
        Py_BEGIN_ALLOW_THREADS
        join_pieces(pieces->list, pieces->count, to);
        Py_END_ALLOW_THREADS
    }
    return result;
}

static PyMethodDef pieces_methods[] = {
    {"tobytes", pieces_tobytes, METH_NOARGS, pieces_tobytes_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pieces_slots[] = {
    {Py_tp_dealloc, pieces_dealloc},
    {Py_sq_length, pieces_length},
    {Py_tp_methods, pieces_methods},
    {Py_tp_doc, "A chunk as pieces of its bases and of the bodies of deltas; immutable."},
    {0, NULL},
};

static PyType_Spec pieces_spec = {
    .name = "packstone.codec._delta.Pieces",
    .basicsize = sizeof(Pieces),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pieces_slots,
};

/* Take the pieces of the bases, each bytes or Pieces; `whole` has room for those in one piece. */
static int take_texts(PyObject *owners, PyTypeObject *type, struct texts *texts,
                      struct piece whole[MAX_BASES])
{
    Py_ssize_t count = PyTuple_Size(owners) - 1; /* the body comes last */

    texts->count = (int)count;
    texts->size = 0;
    for (int i = 0; i < count; i++) {
        PyObject *base = PyTuple_GetItem(owners, i);
        if (PyBytes_Check(base)) {
            size_t size = (size_t)PyBytes_Size(base);
            whole[i] = (struct piece){(const unsigned char *)PyBytes_AsString(base), size};
            texts->pieces[i] = &whole[i];
            texts->counts[i] = 1;
            texts->sizes[i] = size;
        } else if (Py_TYPE(base) == type) {
            Pieces *pieces = (Pieces *)base;
            texts->pieces[i] = pieces->list;
            texts->counts[i] = pieces->count;
            texts->sizes[i] = pieces->size;
        } else {
            PyErr_SetString(PyExc_TypeError, "a base is neither bytes nor Pieces");
            return -1;
        }
        if (texts->sizes[i] > MAX_SIZE) {
            PyErr_Format(PyExc_ValueError, "base of %zu bytes is above %zu", texts->sizes[i],
                         MAX_SIZE);
            return -1;
        }
        texts->size += texts->sizes[i];
    }
    return 0;
}

/* Return (bases..., body) as a tuple of their own. */
static PyObject *own(PyObject *sequence, PyObject *body)
{
    PyObject *list = PySequence_Tuple(sequence), *owners = NULL;
    Py_ssize_t count = list ? PyTuple_Size(list) : 0;

    if (list && (count < 1 || count > MAX_BASES))
        PyErr_Format(PyExc_ValueError, "expected 1 to %d bases, got %zd", MAX_BASES, count);
    else if (list)
        owners = PyTuple_New(count + 1);
    for (Py_ssize_t i = 0; owners && i <= count; i++) {
        PyObject *each = i < count ? PyTuple_GetItem(list, i) : body;
        Py_INCREF(each);
        PyTuple_SetItem(owners, i, each);
    }
    Py_XDECREF(list);
    return owners;
}

PyDoc_STRVAR(compose_doc,
"compose(body, bases, raw_size) -> Pieces | None\n\n"
"Return the chunk that a body makes from its bases, bytes or Pieces each, without copying it.\n"
"None if it would be in very small pieces. Raises ValueError as decode does.");

static PyObject *delta_compose(PyObject *module, PyObject *args)
{
    struct state *state = PyModule_GetState(module);
    PyObject *body, *sequence, *owners, *result = NULL;
    struct pieces made = {NULL, 0, 0, 0};
    struct piece whole[MAX_BASES];
    struct layout layout;
    struct texts texts;
    const char *problem;
    Py_ssize_t raw_size;
    size_t size;
    const unsigned char *from;
    int too_many = 0;

    if (!PyArg_ParseTuple(args, "SOn:compose", &body, &sequence, &raw_size))
        return NULL;
    if (raw_size < 0 || (size_t)raw_size > MAX_SIZE) {
        PyErr_Format(PyExc_ValueError, "chunk of %zd bytes is outside 0..%zu", raw_size, MAX_SIZE);
        return NULL;
    }
    owners = own(sequence, body);
    if (!owners || take_texts(owners, state->pieces_type, &texts, whole))
        goto done;
    from = (const unsigned char *)PyBytes_AsString(body);
    size = (size_t)PyBytes_Size(body);
    made.most = (size_t)raw_size / PIECE_SIZE + FEW_PIECES;
    made.list = PyMem_Malloc(made.most * sizeof *made.list);
    if (!made.list) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    problem = check_body(from, size, texts.size, (size_t)raw_size, &layout);
    too_many = !problem && compose_body(&layout, &texts, &made);
    Py_END_ALLOW_THREADS
    if (problem)
        raise_problem(problem);
    else if (too_many)
        result = Py_NewRef(Py_None);
    else {
        allocfunc allocate = (allocfunc)PyType_GetSlot(state->pieces_type, Py_tp_alloc);
        Pieces *pieces = (Pieces *)allocate(state->pieces_type, 0);
        if (pieces) {
            struct piece *fitting = PyMem_Realloc(made.list, (made.count + 1) * sizeof *fitting);
            pieces->list = fitting ? fitting : made.list;
            pieces->count = made.count;
            pieces->size = made.size;
            pieces->owners = owners;
            return (PyObject *)pieces;
        }
    }
done:
    PyMem_Free(made.list);
    Py_XDECREF(owners);
    return result;
}

static PyMethodDef delta_functions[] = {
    {"encode", delta_encode, METH_VARARGS, encode_doc},
    {"decode", delta_decode, METH_VARARGS, decode_doc},
    {"compose", delta_compose, METH_VARARGS, compose_doc},
    {NULL, NULL, 0, NULL},
};

static int delta_exec(PyObject *module)
{
    struct state *state = PyModule_GetState(module);

    state->pieces_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &pieces_spec, NULL);
    return state->pieces_type ? PyModule_AddType(module, state->pieces_type) : -1;
}

static int delta_clear(PyObject *module)
{
    struct state *state = PyModule_GetState(module);

    Py_CLEAR(state->pieces_type);
    return 0;
}

static int delta_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *state = PyModule_GetState(module);

    Py_VISIT(state->pieces_type);
    return 0;
}

static PyModuleDef_Slot delta_slots[] = {
    {Py_mod_exec, delta_exec},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef delta_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "packstone.codec._delta",
    .m_doc = "Copy and insert instructions of deltas (docs/format.md section 4) in C.",
    .m_size = sizeof(struct state),
    .m_methods = delta_functions,
    .m_slots = delta_slots,
    .m_traverse = delta_traverse,
    .m_clear = delta_clear,
};

PyMODINIT_FUNC PyInit__delta(void)
{
    return PyModuleDef_Init(&delta_module);
}
