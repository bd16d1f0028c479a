/* Directories: their names, sorted, and what lstat says of each.
 *
 * The parts that touch the disk run without the interpreter lock; the others build objects.
 */
#ifndef PACKSTONE_LISTING_H
#define PACKSTONE_LISTING_H

#include <Python.h>

#include "_platform.h"

/* ---------------------------------------------------------------- stat */

#define STAT_FIELDS 11 /* in the order of model.Stat */

typedef struct {
    uint32_t mode, uid, gid;
    int64_t size, mtime_ns, ctime_ns;
    uint64_t inode, nlink;
    long long device, rdev; /* as os.stat gives them */
    int64_t blocks;
} Stat;

static void
take_stat(Stat *to, const struct stat *from)
{
    to->mode = (uint32_t)from->st_mode;
    to->uid = (uint32_t)from->st_uid;
    to->gid = (uint32_t)from->st_gid;
    to->size = (int64_t)from->st_size;
    to->mtime_ns = time_ns(MTIME(from));
    to->ctime_ns = time_ns(CTIME(from));
    to->inode = (uint64_t)from->st_ino;
    to->nlink = (uint64_t)from->st_nlink;
    to->device = (long long)from->st_dev;
    to->rdev = (long long)from->st_rdev;
    to->blocks = (int64_t)from->st_blocks;
}

/* Neighbours share mode, owner and device: one object serves a run of equal values. */
typedef struct {
    PyObject *object;
    uint64_t value;
} Recent;

enum { RECENT_MODE, RECENT_UID, RECENT_GID, RECENT_DEVICE, RECENT_COUNT };

static PyObject *
recent_number(Recent *recent, uint64_t value)
{
    if (recent->object == NULL || recent->value != value) {
        PyObject *object = PyLong_FromLongLong((long long)value);
        if (object == NULL) {
            return NULL;
        }
        Py_XDECREF(recent->object);
        recent->object = object;
        recent->value = value;
    }
    Py_INCREF(recent->object);
    return recent->object;
}

static void
forget_recent(Recent *recent)
{
    for (int i = 0; i < RECENT_COUNT; i++) {
        Py_CLEAR(recent[i].object);
    }
}

static PyObject *
build_stat(const Stat *stat, Recent *recent)
{
    PyObject *fields[STAT_FIELDS];
    PyObject *row = PyTuple_New(STAT_FIELDS);
    if (row == NULL) {
        return NULL;
    }
    fields[0] = recent_number(&recent[RECENT_MODE], stat->mode);
    fields[1] = recent_number(&recent[RECENT_UID], stat->uid);
    fields[2] = recent_number(&recent[RECENT_GID], stat->gid);
    fields[3] = PyLong_FromLongLong(stat->size);
    fields[4] = PyLong_FromLongLong(stat->mtime_ns);
    if (stat->ctime_ns == stat->mtime_ns) {
        Py_XINCREF(fields[4]);
        fields[5] = fields[4];
    }
    else {
        fields[5] = PyLong_FromLongLong(stat->ctime_ns);
    }
    fields[6] = PyLong_FromUnsignedLongLong(stat->inode);
    fields[7] = PyLong_FromUnsignedLongLong(stat->nlink);
    fields[8] = recent_number(&recent[RECENT_DEVICE], (uint64_t)stat->device);
    fields[9] = PyLong_FromLongLong(stat->rdev);
    fields[10] = PyLong_FromLongLong(stat->blocks);
    int complete = 1;
    for (int i = 0; i < STAT_FIELDS; i++) {
        complete &= fields[i] != NULL;
        PyTuple_SetItem(row, i, fields[i]); /* takes the reference; NULL is allowed */
    }
    if (!complete) {
        Py_DECREF(row);
        return NULL;
    }
    return row;
}

/* lstat of each of `names`. With `directories` and `failures`, lists: the positions of the
 * directories and of the names that failed are appended to them, so that the caller need
 * not look at every row. */
static PyObject *
stat_names(int fd, PyObject *names, PyObject *directories, PyObject *failures)
{
    Recent recent[RECENT_COUNT] = {{NULL, 0}};
    PyObject *rows = NULL;
    PyObject *held = PySequence_Tuple(names); /* the names stay alive without the lock */
    if (held == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(held);
    const char **texts = malloc((size_t)(count + 1) * sizeof *texts);
    Stat *stats = malloc((size_t)(count + 1) * sizeof *stats);
    int *errors = malloc((size_t)(count + 1) * sizeof *errors);
    if (texts == NULL || stats == NULL || errors == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char *text;
        /* without a place for the length, a NUL inside is a ValueError */
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(held, i), &text, NULL) < 0) {
            goto done;
        }
        texts[i] = text;
    }

    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        struct stat status;
        int result;
        RETRY(result, fstatat(fd, texts[i], &status, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT));
        errors[i] = result < 0 ? errno : 0;
        if (result == 0) {
            take_stat(&stats[i], &status);
        }
    }
    Py_END_ALLOW_THREADS

    rows = PyList_New(count);
    for (Py_ssize_t i = 0; rows != NULL && i < count; i++) {
        PyObject *noted = errors[i] ? failures : S_ISDIR(stats[i].mode) ? directories : NULL;
        PyObject *row = errors[i] ? PyLong_FromLong(errors[i]) : build_stat(&stats[i], recent);
        if (row == NULL || PyList_SetItem(rows, i, row) < 0) {
            Py_CLEAR(rows);
        }
        else if (noted != NULL) {
            PyObject *position = PyLong_FromSsize_t(i);
            if (position == NULL || PyList_Append(noted, position) < 0) {
                Py_CLEAR(rows);
            }
            Py_XDECREF(position);
        }
    }
done:
    forget_recent(recent);
    free(texts);
    free(stats);
    free(errors);
    Py_DECREF(held);
    return rows;
}

/* ---------------------------------------------------------------- names */

typedef struct {
    uint64_t head; /* the first eight bytes, big-endian: decides most comparisons */
    size_t offset;
    size_t size;
} Name;

typedef struct {
    char *text; /* all names, one after the other, each with its NUL */
    size_t text_size, text_room;
    Name *names;
    size_t count, room;
} Names;

static int
add_name(Names *all, const char *name)
{
    if (name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0))) {
        return 0;
    }
    size_t size = strlen(name);
    if (all->text_size + size + 1 > all->text_room) {
        size_t room = all->text_room * 2 + size + 16384;
        char *text = realloc(all->text, room);
        if (text == NULL) {
            return -1;
        }
        all->text = text;
        all->text_room = room;
    }
    if (all->count == all->room) {
        size_t room = all->room * 2 + 512;
        Name *names = realloc(all->names, room * sizeof *names);
        if (names == NULL) {
            return -1;
        }
        all->names = names;
        all->room = room;
    }
    Name *entry = &all->names[all->count++];
    entry->offset = all->text_size;
    entry->size = size;
    entry->head = 0;
    for (size_t i = 0; i < 8; i++) {
        entry->head = entry->head << 8 | (i < size ? (unsigned char)name[i] : 0);
    }
    memcpy(all->text + all->text_size, name, size + 1);
    all->text_size += size + 1;
    return 0;
}

/* Merge sort by bytes: qsort has no place for the text the offsets point into. */
static int
is_ascending(const Names *all, const Name *a, const Name *b)
{
    if (a->head != b->head) {
        return a->head < b->head;
    }
    /* equal heads: both are shorter than eight bytes and equal, or the tails decide */
    return strcmp(all->text + a->offset, all->text + b->offset) <= 0;
}

static int
sort_names(Names *all)
{
    size_t count = all->count;
    Name *from = all->names;
    Name *to = malloc((count + 1) * sizeof *to);
    if (to == NULL) {
        return -1;
    }
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t begin = 0; begin < count; begin += 2 * width) {
            size_t middle = begin + width < count ? begin + width : count;
            size_t end = begin + 2 * width < count ? begin + 2 * width : count;
            size_t left = begin, right = middle;
            for (size_t place = begin; place < end; place++) {
                int take_left = left < middle &&
                                (right >= end || is_ascending(all, &from[left], &from[right]));
                to[place] = take_left ? from[left++] : from[right++];
            }
        }
        Name *swap = from;
        from = to;
        to = swap;
    }
    all->names = from;
    free(to);
    return 0;
}

#if defined(__linux__) && defined(SYS_getdents64)

/* Read all names from the start. Returns 0 or -1 with errno. */
static int
read_names(int fd, Names *all)
{
    enum { ROOM = 65536, NAME_AT = 19 }; /* struct linux_dirent64: 8 + 8 + 2 + 1, then d_name */
    char *buffer = malloc(ROOM);
    if (buffer == NULL) {
        return -1;
    }
    int result = -1;
    if (lseek(fd, 0, SEEK_SET) < 0) {
        goto done;
    }
    for (;;) {
        long size;
        RETRY(size, syscall(SYS_getdents64, fd, buffer, ROOM));
        if (size <= 0) {
            result = (int)size;
            break;
        }
        for (long at = 0; at < size;) {
            uint16_t record_size;
            memcpy(&record_size, buffer + at + 16, sizeof record_size);
            if (add_name(all, buffer + at + NAME_AT) < 0) {
                goto done;
            }
            at += record_size;
        }
    }
done:
    free(buffer);
    return result;
}

#else

static int
read_names(int fd, Names *all)
{
    int result = -1, own;
    /* a description of its own: the position is not shared with `fd` */
    RETRY(own, openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR *stream = own < 0 ? NULL : fdopendir(own);
    if (stream == NULL) {
        if (own >= 0) {
            int error = errno;
            close(own);
            errno = error;
        }
        return -1;
    }
    for (;;) {
        errno = 0; /* the only way to tell the end from an error */
        struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            if (errno == EINTR) {
                continue;
            }
            result = errno == 0 ? 0 : -1;
            break;
        }
        if (add_name(all, entry->d_name) < 0) {
            break;
        }
    }
    int error = errno;
    closedir(stream);
    errno = error;
    return result;
}

#endif

static void
free_names(Names *all)
{
    free(all->text);
    free(all->names);
}

/* Names and order in one go, without the interpreter lock. Returns 0 or an errno. */
static int
collect_names(int fd, Names *all)
{
    errno = 0;
    if (read_names(fd, all) < 0 || sort_names(all) < 0) {
        return errno ? errno : ENOMEM;
    }
    return 0;
}

static PyObject *
build_names(const Names *all)
{
    PyObject *list = PyList_New((Py_ssize_t)all->count);
    for (size_t i = 0; list != NULL && i < all->count; i++) {
        const Name *name = &all->names[i];
        PyObject *bytes =
            PyBytes_FromStringAndSize(all->text + name->offset, (Py_ssize_t)name->size);
        if (bytes == NULL || PyList_SetItem(list, (Py_ssize_t)i, bytes) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

#endif
