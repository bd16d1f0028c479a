/* Included before an extension's own source: its n-th allocation fails, where the environment
 * variable ALLOCATION of that extension says n. At the end the number of allocations is appended
 * to the file that ALLOCATIONS names. */
#include <Python.h>
#include <stdio.h>
#include <stdlib.h>

static long allocations;
static int fails_now(void)
{
    const char *at = getenv("FAIL_" EXTENSION);
    return __atomic_add_fetch(&allocations, 1, __ATOMIC_SEQ_CST) == (at ? atol(at) : 0);
}

static inline void *failing_malloc(size_t size) { return fails_now() ? NULL : malloc(size); }
static inline void *failing_calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : calloc(count, size);
}
static inline void *failing_realloc(void *old, size_t size)
{
    return fails_now() ? NULL : realloc(old, size);
}
static inline void *failing_mem_malloc(size_t size) { return fails_now() ? NULL : PyMem_Malloc(size); }
static inline void *failing_mem_realloc(void *old, size_t size)
{
    return fails_now() ? NULL : PyMem_Realloc(old, size);
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("ALLOCATIONS");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, EXTENSION " %ld\n", allocations);
        fclose(file);
    }
    (void)failing_malloc, (void)failing_calloc, (void)failing_realloc;
    (void)failing_mem_malloc, (void)failing_mem_realloc;
}

#define malloc failing_malloc
#define calloc failing_calloc
#define realloc failing_realloc
#define PyMem_Malloc failing_mem_malloc
#define PyMem_Realloc failing_mem_realloc
