/* Map the guest's RAM, to read table pages as the unit reads them. */
#define _GNU_SOURCE
#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t frames;

static struct { uint64_t gpa, length, offset; } ranges[16];
static size_t range_count;
static const uint8_t *ram; /* the whole file */

/* Parse "GPA:LENGTH:OFFSET;..."; false when it is not that. */
bool ram_layout(const char *text) {
    range_count = 0;
    while (*text) {
        uint64_t numbers[3];
        for (int i = 0; i < 3; i++) {
            char *end;
            errno = 0;
            numbers[i] = strtoull(text, &end, 0);
            if (errno || end == text || (i < 2 && *end != ':') || (i == 2 && *end && *end != ';') ||
                numbers[i] % PAGE_BYTES)
                return false;
            text = *end ? end + 1 : end;
        }
        if (range_count == sizeof(ranges) / sizeof(ranges[0]) ||
            numbers[0] + numbers[1] > 1ull << 48 || numbers[2] + numbers[1] > 1ull << 48)
            return false;
        ranges[range_count].gpa = numbers[0];
        ranges[range_count].length = numbers[1];
        ranges[range_count++].offset = numbers[2];
    }
    return range_count > 0;
}

const uint64_t *ram_page(uint64_t frame) {
    uint64_t gpa = frame << PAGE_SHIFT;

    for (size_t i = 0; i < range_count; i++) {
        if (gpa >= ranges[i].gpa && gpa - ranges[i].gpa < ranges[i].length)
            return (const uint64_t *)(ram + ranges[i].offset + (gpa - ranges[i].gpa));
    }
    return NULL;
}

uint64_t load(const uint64_t *qword) {
    return __atomic_load_n(qword, __ATOMIC_RELAXED);
}

/* Map the RAM file; false when it is not there or shorter than the layout says. */
bool ram_map(const char *path) {
    uint64_t end = 0, top = 0;
    struct stat status;

    if (ram)
        return true;
    for (size_t i = 0; i < range_count; i++) {
        if (ranges[i].offset + ranges[i].length > end)
            end = ranges[i].offset + ranges[i].length;
        if (ranges[i].gpa + ranges[i].length > top)
            top = ranges[i].gpa + ranges[i].length;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (fstat(fd, &status) < 0 || (uint64_t)status.st_size < end) {
        close(fd);
        return false;
    }
    void *at = mmap(NULL, end, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        return false;
    ram = at;
    frames = top >> PAGE_SHIFT;
    return true;
}
