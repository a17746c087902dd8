/* Write the recorder's lines into QEMU's log. */
#include "qemu_api.h"
#include "recorder.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

bool lost;

static char line[64 + QWORDS * 24];

void say(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    qemu_plugin_outs(line);
}

/* Stop watching: what is reported from here on could be wrong. */
void give_up(const char *reason) {
    if (!lost) {
        lost = true;
        say("dmr lost %s\n", reason);
    }
}

/* Numbers of decoders.events.Role. */
static const uint8_t role_of_kind[K_COUNT] = {
    [K_ROOT] = 0,
    [K_SCALABLE_ROOT] = 0,
    [K_CONTEXT] = 1,
    [K_SCALABLE_CONTEXT] = 2,
    [K_PASID_DIRECTORY] = 3,
    [K_PASID_TABLE] = 4,
    [K_SECOND5] = 5,
    [K_SECOND5 + 1] = 5,
    [K_SECOND5 + 2] = 5,
    [K_SECOND5 + 3] = 5,
    [K_SECOND1] = 5,
    [K_FIRST5] = 6,
    [K_FIRST5 + 1] = 6,
    [K_FIRST5 + 2] = 6,
    [K_FIRST5 + 3] = 6,
    [K_FIRST1] = 6,
    [K_QUEUE] = 7,
};

void say_snapshot(uint64_t frame, enum kind kind) {
    const uint64_t *content = ram_page(frame);
    unsigned int level = 0;

    if (kind >= K_FIRST5 && kind <= K_FIRST1)
        level = K_FIRST1 - kind + 1;
    else if (kind >= K_SECOND5 && kind <= K_SECOND1)
        level = K_SECOND1 - kind + 1;
    int at = snprintf(line, sizeof(line), "dmr snap %" PRIx64 " %x %x", frame << PAGE_SHIFT,
                      role_of_kind[kind], level);
    /* From RAM and not from a shadow: the unit itself sets accessed and dirty bits. */
    for (unsigned int i = 0; i < QWORDS; i++) {
        uint64_t qword = load(content + i);
        if (qword)
            at += snprintf(line + at, sizeof(line) - (size_t)at, " %x:%" PRIx64, i, qword);
    }
    line[at] = '\n';
    line[at + 1] = 0;
    qemu_plugin_outs(line);
}
