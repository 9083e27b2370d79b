/* A library for LD_PRELOAD that counts what a process does to the disk, and fails, kills or stops it at the n-th time.

   disk_arm(first, last, what): from the first-th to the last-th operation `what` happens: a number above 0 is the errno
   that the operation fails with, -1 kills the process, -2 stops it. disk_count() is the number of operations so far. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long count, first, last;
static int what;

void disk_arm(long from, long to, int how) { count = 0; first = from; last = to; what = how; }
long disk_count(void) { return count; }

static int faulty(void) {
    long now = __sync_add_and_fetch(&count, 1);
    if (now < first || now > last) return 0;
    if (what == -1) kill(getpid(), SIGKILL);
    if (what == -2) { raise(SIGSTOP); return 0; }
    if (what > 0) { errno = what; return 1; }
    return 0;
}

static int is_made(const char *path, int flags) {  /* on a disk */
    return (flags & (O_CREAT | O_TRUNC)) && strncmp(path, "/dev/", 5);
}

static int is_file(int fd) {
    struct stat found;
    return fd > 2 && fstat(fd, &found) == 0 && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode));
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if (is_made(path, flags) && faulty()) return -1; \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); \
    }
#define OPENS_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if (is_made(path, flags) && faulty()) return -1; \
        return ((int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name))(folder, path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

ssize_t write(int fd, const void *data, size_t n) { return is_file(fd) && faulty() ? -1 : REAL(write)(fd, data, n); }
ssize_t writev(int fd, const struct iovec *data, int n) {
    return is_file(fd) && faulty() ? -1 : REAL(writev)(fd, data, n);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    return is_file(fd) && faulty() ? -1 : REAL(pwrite64)(fd, data, n, at);
}
ssize_t copy_file_range(int in, off64_t *at, int out, off64_t *to, size_t n, unsigned flags) {
    return faulty() ? -1 : REAL(copy_file_range)(in, at, out, to, n, flags);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t n) {
    ssize_t (*real)(int, int, off64_t *, size_t) = dlsym(RTLD_NEXT, "sendfile64");
    return is_file(out) && faulty() ? -1 : real(out, in, at, n);
}
int ftruncate64(int fd, off64_t size) { return is_file(fd) && faulty() ? -1 : REAL(ftruncate64)(fd, size); }
int fsync(int fd) { return is_file(fd) && faulty() ? -1 : REAL(fsync)(fd); }
int mkdir(const char *path, mode_t mode) { return faulty() ? -1 : REAL(mkdir)(path, mode); }
int link(const char *from, const char *to) { return faulty() ? -1 : REAL(link)(from, to); }
int rename(const char *from, const char *to) { return faulty() ? -1 : REAL(rename)(from, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return faulty() ? -1 : REAL(renameat2)(a, from, b, to, flags);
}
int unlink(const char *path) { return what < 0 && faulty() ? -1 : REAL(unlink)(path); }
int unlinkat(int folder, const char *path, int flags) {
    return what < 0 && faulty() ? -1 : REAL(unlinkat)(folder, path, flags);
}
int rmdir(const char *path) { return what < 0 && faulty() ? -1 : REAL(rmdir)(path); }
