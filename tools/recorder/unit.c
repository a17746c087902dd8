/* Follow the unit's registers: where its tables and its queue are, what it has invalidated. */
#include "recorder.h"

#include <inttypes.h>
#include <string.h>

/* Register offsets and fields, VT-d specification chapter 11 ("Register Descriptions"). */
enum {
    REG_GCMD = 0x18,
    REG_RTADDR = 0x20,
    REG_CCMD = 0x28,
    REG_IQT = 0x88,
    REG_IQA = 0x90,
    /* Placed by ECAP.IRO; QEMU has used this place since the device exists. */
    REG_IVA = 0xf0,
    REG_IOTLB = 0xf8,
};
#define GCMD_SRTP (1u << 30)
#define GCMD_QIE (1u << 26)
#define CCMD_ICC (1ull << 63)
#define IOTLB_IVT (1ull << 63)
#define IQA_DW (1ull << 11)

static uint8_t registers[PAGE_BYTES]; /* what was written, not what reads back */
static bool queue_enabled;
static uint64_t queue_frame, queue_pages, queue_tail;
static struct target root = {.kind = K_COUNT};

static void descriptor(uint64_t q0, uint64_t q1) {
    struct invalidation done = {.domain = ANY_DOMAIN, .last = UINT64_MAX};
    unsigned int type = (unsigned int)((q0 & 0xf) | ((q0 >> 5) & 0x70));
    unsigned int granularity = (unsigned int)(q0 >> 4) & 3;
    unsigned int order = (unsigned int)(q1 & 0x3f);

    switch (type) {
    case 1: /* context cache: global, domain, device */
        done.what = NEED_CONTEXT;
        break;
    case 2: /* IOTLB: global, domain, pages */
    case 6: /* PASID-based IOTLB: all of a PASID, pages */
        done.what = NEED_IOTLB;
        break;
    case 7: /* PASID cache: domain, PASID, -, global */
        done.what = NEED_PASID;
        break;
    default:
        return;
    }
    if (type == 7 ? granularity != 3 : granularity != 1)
        done.domain = (q0 >> 16) & 0xffff;
    if (done.what == NEED_IOTLB && granularity == 3) {
        if (q1 & 0x40) /* IH: only leaf entries are dropped */
            return;
        done.first = q1 & ~0xfffull;
        done.last = order < 52 ? done.first + ((1ull << (PAGE_SHIFT + order)) - 1) : UINT64_MAX;
    }
    track_invalidate(&done);
}

static uint64_t reg64(unsigned int offset) {
    uint64_t value;

    memcpy(&value, registers + offset, sizeof(value));
    return value;
}

/* The tail moved and the unit has executed up to it, since QEMU does that inside the store. */
static void queue_run(void) {
    uint64_t size = queue_pages * PAGE_BYTES;
    uint64_t step = reg64(REG_IQA) & IQA_DW ? 32 : 16;
    uint64_t tail = reg64(REG_IQT) & 0x7fff0 & ~(step - 1);

    if (!queue_enabled || tail >= size)
        return;
    while (queue_tail != tail) {
        const uint64_t *at = ram_page(queue_frame + (queue_tail >> PAGE_SHIFT));
        if (!at)
            return;
        at += (queue_tail & (PAGE_BYTES - 1)) / 8;
        queue_tail = (queue_tail + step) % size;
        descriptor(load(at), load(at + 1));
    }
}

static void queue_stop(void) {
    for (uint64_t i = 0; i < queue_pages; i++) {
        struct target page = {.frame = queue_frame + i, .kind = K_QUEUE, .domain = ANY_DOMAIN};
        track_unlink_now(&page);
    }
    queue_enabled = false;
    queue_pages = 0;
}

static void queue_start(void) {
    uint64_t address = reg64(REG_IQA);

    queue_frame = (address & address_mask) >> PAGE_SHIFT;
    queue_pages = 1ull << (address & 7);
    queue_tail = 0;
    queue_enabled = true;
    for (uint64_t i = 0; i < queue_pages; i++) {
        struct target page = {.frame = queue_frame + i, .kind = K_QUEUE, .domain = ANY_DOMAIN};
        track_link(&page);
    }
    queue_run();
}

static void latch_root(void) {
    uint64_t address = reg64(REG_RTADDR);
    struct target next = {.domain = ANY_DOMAIN};
    unsigned int mode = (unsigned int)(address >> 10) & 3;

    next.frame = (address & address_mask) >> PAGE_SHIFT;
    /* 0 legacy, 1 scalable; 2 is reserved and 3 blocks everything: no tables. */
    next.kind = mode == 0 ? K_ROOT : mode == 1 ? K_SCALABLE_ROOT : K_COUNT;
    if (next.kind != K_COUNT)
        track_link(&next);
    if (root.kind != K_COUNT)
        track_unlink(&root, K_COUNT);
    root = next;
}

static bool touches(unsigned int offset, unsigned int size, unsigned int reg, unsigned int width) {
    return offset < reg + width && reg < offset + size;
}

/* The store has already had its effect, so what the unit did in answer is in the log. */
void unit_store(unsigned int offset, unsigned int size, const uint8_t *bytes) {
    uint64_t value = 0;

    memcpy(&value, bytes, size);
    say("dmr reg %x %x %" PRIx64 "\n", offset, size, value);
    memcpy(registers + offset, bytes, size);
    if (lost || !frames)
        return;
    if (touches(offset, size, REG_GCMD, 4)) {
        uint32_t command = (uint32_t)reg64(REG_GCMD);
        if (command & GCMD_SRTP)
            latch_root();
        if (!!(command & GCMD_QIE) != queue_enabled) {
            if (queue_enabled)
                queue_stop();
            else
                queue_start();
        }
    }
    if (touches(offset, size, REG_IQA, 8) && queue_enabled) {
        queue_stop();
        queue_start();
    }
    if (touches(offset, size, REG_IQT, 4))
        queue_run();
    /* Register-based invalidation; its start bit is in the upper half. */
    if (touches(offset, size, REG_CCMD + 4, 4) && reg64(REG_CCMD) & CCMD_ICC) {
        uint64_t command = reg64(REG_CCMD);
        struct invalidation done = {.what = NEED_CONTEXT, .domain = ANY_DOMAIN};
        if (((command >> 61) & 3) != 1)
            done.domain = command & 0xffff;
        track_invalidate(&done);
    }
    if (touches(offset, size, REG_IOTLB + 4, 4) && reg64(REG_IOTLB) & IOTLB_IVT) {
        uint64_t command = reg64(REG_IOTLB), address = reg64(REG_IVA);
        struct invalidation done = {.what = NEED_IOTLB, .domain = ANY_DOMAIN, .last = UINT64_MAX};
        if (((command >> 60) & 3) != 1)
            done.domain = (command >> 32) & 0xffff;
        if (((command >> 60) & 3) == 3) {
            done.first = address & ~0xfffull;
            if ((address & 0x3f) < 52)
                done.last = done.first + ((1ull << (PAGE_SHIFT + (address & 0x3f))) - 1);
        }
        if (((command >> 60) & 3) != 3 || !(address & 0x40))
            track_invalidate(&done);
    }
}

void unit_reset(void) {
    track_forget_all();
    memset(registers, 0, sizeof(registers));
    queue_enabled = false;
    queue_pages = 0;
    root.kind = K_COUNT;
}
