/* Loaded into a server or a process that a test starts: it ends with the test, and its wall clock is the test's.
 *
 * MOONTIDE_TEST_CLOCK names a file that holds milliseconds since 1970 as a 64-bit number: the clock stands there.
 * TEST_CLOCK_AHEAD names one that holds how many milliseconds it is ahead of the real one, whole seconds, and it goes on.
 * Monotonic clocks are left alone: timers go on. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *now_ms;
static const volatile int64_t *ahead_ms;
static pid_t parent;

static void *end_with_parent(void *unused)
{
    const struct timespec pause = {0, 200000000};
    while (getppid() == parent)
        nanosleep(&pause, NULL);
    _exit(0);
    return unused;
}

static const volatile int64_t *shared(const char *variable)
{
    const char *path = getenv(variable);
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return NULL;
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED)
        abort();
    close(file);
    return page;
}

__attribute__((constructor)) static void begin(void)
{
    now_ms = shared("MOONTIDE_TEST_CLOCK");
    ahead_ms = shared("TEST_CLOCK_AHEAD");
    parent = getppid();
    pthread_t watcher;
    pthread_create(&watcher, NULL, end_with_parent, NULL);
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    int is_wall = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
    if (is_wall && now_ms != NULL) {
        int64_t now = *now_ms;
        at->tv_sec = now / 1000;
        at->tv_nsec = now % 1000 * 1000000;
        return 0;
    }
    int failed = (int)syscall(SYS_clock_gettime, id, at);
    if (is_wall && ahead_ms != NULL && !failed)
        at->tv_sec += *ahead_ms / 1000;
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
