/* The rolling-hash chunk cutter of CernVM-FS (upstream: ingestion/chunk_detector.cc).
 *
 * One pure function over bytes and numbers; its twin is lazyfs/publish/cutter_py.py. All state is
 * passed in and out, and the interpreter lock is released while bytes are looked at.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* The value depends on the last 32 bytes, one for each bit. */
#define WINDOW 32u
#define CENTRE 0x7fffffffu

typedef struct {
    uint64_t position; /* offset of the first byte of the data in the stream */
    uint64_t last;     /* offset of the last cut */
    uint32_t value;
    uint64_t minimum, maximum;
    uint32_t threshold;
} cutter;

static int is_mark(uint32_t value, uint32_t threshold)
{
    /* Signed 32-bit wrap-around: abs(INT_MIN) stays negative and is below any threshold. */
    uint32_t distance = value - CENTRE;
    return distance < threshold || (uint32_t)(0u - distance) < threshold || distance == 0x80000000u;
}

/* Fill marks with at most room offsets; return their number. */
static size_t scan(cutter *c, const uint8_t *data, uint64_t size, uint64_t *marks, size_t room)
{
    size_t found = 0;
    const uint64_t end = c->position + size;
    uint64_t i = c->position;
    while (i < end) {
        const uint64_t begin = c->last + c->minimum - WINDOW;
        if (i < begin) {
            i = begin < end ? begin : end;
            continue;
        }
        int cut = i == c->last + c->maximum;
        if (!cut) {
            c->value = (c->value << 1) ^ data[i - c->position];
            cut = i >= c->last + c->minimum && is_mark(c->value, c->threshold);
        }
        if (cut) {
            if (found == room)
                return found;
            marks[found++] = i;
            c->last = i;
            c->value = 0;
        } else {
            i++;
        }
    }
    return found;
}

static PyObject *mark_list(const uint64_t *marks, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t k = 0; list != NULL && k < count; k++) {
        PyObject *number = PyLong_FromUnsignedLongLong(marks[k]);
        if (number == NULL || PyList_SetItem(list, (Py_ssize_t)k, number) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

PyDoc_STRVAR(cut_marks_doc,
             "cut_marks(data, position, last, value, minimum, average, maximum)\n--\n\n"
             "The cuts in data and the new (last, value); see lazyfs.publish.cutter_py.");

static PyObject *cut_marks(PyObject *module, PyObject *args)
{
    Py_buffer data;
    unsigned long long position, last, minimum, average, maximum;
    unsigned int value;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*KKIKKK", &data, &position, &last, &value, &minimum, &average,
                          &maximum))
        return NULL;
    PyObject *result = NULL;
    if (minimum < WINDOW || average <= minimum || maximum <= average || last > position) {
        PyErr_SetString(PyExc_ValueError,
                        "need 32 <= minimum < average < maximum, last <= position");
        goto out;
    }
    /* Each cut but the first is at least minimum bytes after the one before. */
    const size_t room = (size_t)((uint64_t)data.len / minimum) + 2;
    uint64_t *marks = PyMem_Malloc(room * sizeof *marks);
    if (marks == NULL) {
        PyErr_NoMemory();
        goto out;
    }
    cutter c = {position, last, value, minimum, maximum, (uint32_t)(0xffffffffull / average)};
    size_t count;
    Py_BEGIN_ALLOW_THREADS
    count = scan(&c, data.buf, (uint64_t)data.len, marks, room);
    Py_END_ALLOW_THREADS
    PyObject *list = mark_list(marks, count);
    PyMem_Free(marks);
    if (list != NULL)
        result = Py_BuildValue("NKI", list, (unsigned long long)c.last, (unsigned int)c.value);
out:
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"cut_marks", cut_marks, METH_VARARGS, cut_marks_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "lazyfs._native",
    .m_doc = "Fast twins of Python functions.",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModule_Create(&module_def);
}
