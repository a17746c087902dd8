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

static const uint8_t role_of_kind[K_COUNT] = {
    [K_ROOT] = ROLE_ROOT,
    [K_SCALABLE_ROOT] = ROLE_ROOT,
    [K_CONTEXT] = ROLE_CONTEXT,
    [K_SCALABLE_CONTEXT] = ROLE_SCALABLE_CONTEXT,
    [K_PASID_DIRECTORY] = ROLE_PASID_DIRECTORY,
    [K_PASID_TABLE] = ROLE_PASID_TABLE,
    [K_SECOND5] = ROLE_SECOND_STAGE,
    [K_SECOND5 + 1] = ROLE_SECOND_STAGE,
    [K_SECOND5 + 2] = ROLE_SECOND_STAGE,
    [K_SECOND5 + 3] = ROLE_SECOND_STAGE,
    [K_SECOND1] = ROLE_SECOND_STAGE,
    [K_FIRST5] = ROLE_FIRST_STAGE,
    [K_FIRST5 + 1] = ROLE_FIRST_STAGE,
    [K_FIRST5 + 2] = ROLE_FIRST_STAGE,
    [K_FIRST5 + 3] = ROLE_FIRST_STAGE,
    [K_FIRST1] = ROLE_FIRST_STAGE,
    [K_INTERRUPTS] = ROLE_INTERRUPT_TABLE,
    [K_QUEUE] = ROLE_QUEUE,
};

void say_snapshot(uint64_t frame, enum kind kind) {
    const uint64_t *content = ram_page(frame);

    int at = snprintf(line, sizeof(line), "dmr snap %" PRIx64 " %x %x", frame << PAGE_SHIFT,
                      role_of_kind[kind], level_of(kind));
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
