/* Preloaded into a daemon, moves the clock on its wall, and no other clock, by the seconds that a file holds.
 *
 * The file, eight bytes long and named by WALL_CLOCK_OFFSET, is mapped into memory: whoever writes to it steps the
 * clock at once, in the middle of whatever the daemon is doing. libfaketime would do, did it not break sleeping by
 * the monotonic clock, as Python and with it the driver's own threads do.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_seconds;

__attribute__((constructor)) static void map_offset(void)
{
    int file = open(getenv("WALL_CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
    void *mapped = mmap(NULL, sizeof *offset_seconds, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || mapped == MAP_FAILED)
        abort();
    close(file);
    offset_seconds = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset_seconds;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int result = (int)syscall(SYS_gettimeofday, now, zone);
    if (result == 0)
        now->tv_sec += *offset_seconds;
    return result;
}

time_t time(time_t *now)
{
    struct timespec precisely;
    clock_gettime(CLOCK_REALTIME, &precisely);
    if (now)
        *now = precisely.tv_sec;
    return precisely.tv_sec;
}
