/* Preloaded before libc: the process dies at the n-th change that it makes below a folder.
 *
 * fault_arm(folder, n, torn): from now on the n-th call (from 0) that would change something below `folder` is the last
 * thing that the process does. It is not made; with torn != 0 a write is made by half. fault_count(): calls seen so far.
 * Covers what CPython, SQLite and the Rust standard library use to change files.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[4096];
static size_t root_length;
static int last = -1, tear;
static atomic_int count;
static atomic_int armed;

void fault_arm(const char *folder, int n, int torn) {
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    last = n;
    tear = torn;
    atomic_store(&count, 0);
    atomic_store(&armed, 1);
}

int fault_count(void) { return atomic_load(&count); }

static int below(const char *path) { return strncmp(path, root, root_length) == 0; }

static int below_at(int dir, const char *path) {
    if (path[0] == '/' || dir == AT_FDCWD) return below(path);
    char link[64], target[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t size = readlink(link, target, sizeof target - 1);
    if (size < 0) return 0;
    target[size] = 0;
    return below(target);
}

static int below_fd(int fd) { return below_at(fd, "."); }

/* Counts a call; whether it is the last one. */
static int is_last(void) { return atomic_fetch_add(&count, 1) == last; }

static void step(int counts) {
    if (atomic_load(&armed) && counts && is_last()) _exit(66);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list list; va_start(list, flags); \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(list, mode_t) : 0; va_end(list); \
        static int (*real)(const char *, int, ...); \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        step(atomic_load(&armed) && (flags & (O_CREAT | O_TRUNC)) && below(path)); \
        return real(path, flags, mode); }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        va_list list; va_start(list, flags); \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(list, mode_t) : 0; va_end(list); \
        static int (*real)(int, const char *, int, ...); \
        if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        step(atomic_load(&armed) && (flags & (O_CREAT | O_TRUNC)) && below_at(dir, path)); \
        return real(dir, path, flags, mode); }
OPENAT(openat)
OPENAT(openat64)

#define WRITE(name, parameters, half, whole, fd) \
    ssize_t name parameters { \
        static ssize_t (*real) parameters; \
        if (!real) real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name); \
        if (atomic_load(&armed) && below_fd(fd) && is_last()) { \
            if (tear) real half; \
            _exit(66); } \
        return real whole; }
WRITE(write, (int fd, const void *data, size_t size), (fd, data, size / 2), (fd, data, size), fd)
WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size / 2, at), (fd, data, size, at), fd)
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size / 2, at), (fd, data, size, at), fd)
WRITE(writev, (int fd, const struct iovec *parts, int n), (fd, parts, n / 2), (fd, parts, n), fd)

#define CALL(name, parameters, arguments, counts) \
    int name parameters { \
        static int (*real) parameters; \
        if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name); \
        step(atomic_load(&armed) && (counts)); \
        return real arguments; }
CALL(fsync, (int fd), (fd), below_fd(fd))
CALL(fdatasync, (int fd), (fd), below_fd(fd))
CALL(ftruncate, (int fd, off_t size), (fd, size), below_fd(fd))
CALL(ftruncate64, (int fd, off64_t size), (fd, size), below_fd(fd))
CALL(truncate, (const char *path, off_t size), (path, size), below(path))
CALL(truncate64, (const char *path, off64_t size), (path, size), below(path))
CALL(rename, (const char *from, const char *to), (from, to), below(to))
CALL(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), below_at(b, to))
CALL(renameat2, (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags), below_at(b, to))
CALL(link, (const char *from, const char *to), (from, to), below(to))
CALL(linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), below_at(b, to))
CALL(unlink, (const char *path), (path), below(path))
CALL(unlinkat, (int dir, const char *path, int flags), (dir, path, flags), below_at(dir, path))
CALL(rmdir, (const char *path), (path), below(path))
CALL(mkdir, (const char *path, mode_t mode), (path, mode), below(path))
CALL(mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), below_at(dir, path))
