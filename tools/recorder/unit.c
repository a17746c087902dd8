/* Follow the unit's registers: where its tables and its queue are, what it has invalidated. */
#include "recorder.h"

#include <inttypes.h>
#include <string.h>

/* ECAP.IRO * 16; QEMU has used this place since the device exists. */
#define INVALIDATION_REGISTERS 0xf0u
/* CAP.MAMV of QEMU's unit: it refuses page-selective invalidations of more than 2^18 pages. */
#define MOST_ORDER 18

static uint8_t registers[PAGE_BYTES]; /* what was written, not what reads back */
static struct target root = {.kind = K_COUNT};
static struct { uint64_t frame, pages; } interrupts;

/*
 * The queue as the unit latched it, and the offset of the descriptor it takes next. `stopped` when
 * the unit has refused a descriptor, or may have: nothing behind that counts as executed.
 */
static struct {
    bool enabled, stopped, wide;
    uint64_t frame, pages, head;
} queue;

static uint64_t reg64(unsigned int offset) {
    uint64_t value;

    memcpy(&value, registers + offset, sizeof(value));
    return value;
}

static bool invalidate_pages(struct invalidation *done, uint64_t address, uint64_t order, bool hint,
                             bool first_stage) {
    if (order > MOST_ORDER)
        return false;
    done->pages = true;
    done->first_stage = first_stage;
    done->first = address;
    done->last = address | ((1ull << (PAGE_SHIFT + order)) - 1);
    if (!hint) /* IH: only leaf entries are dropped */
        track_invalidate(done);
    return true;
}

static bool invalidate_contexts(const uint64_t *words) {
    /* Of the bits 2:0 of a source id, FM 1 ignores bit 2, FM 2 bits 2:1, FM 3 all. */
    static const uint8_t ignored[] = {0, 4, 6, 7};
    struct invalidation done = {.what = NEED_CONTEXT, .domain = ANY_DOMAIN, .who = ANYONE};

    switch (get(words, CONTEXT_CACHE_INVALIDATION_G)) {
    case 3: /* a device */
        done.who = (int32_t)get(words, CONTEXT_CACHE_INVALIDATION_SID);
        done.who_ignore = ignored[get(words, CONTEXT_CACHE_INVALIDATION_FM)];
        /* fall through */
    case 2: /* a domain */
        done.domain = (int32_t)get(words, CONTEXT_CACHE_INVALIDATION_DID);
        /* fall through */
    case 1:
        track_invalidate(&done);
        return true;
    default:
        return false;
    }
}

static bool invalidate_iotlb(const uint64_t *words) {
    struct invalidation done = {.what = NEED_IOTLB, .domain = ANY_DOMAIN, .who = ANYONE};
    uint64_t granularity = get(words, IOTLB_INVALIDATION_G);

    if (granularity != 1)
        done.domain = (int32_t)get(words, IOTLB_INVALIDATION_DID);
    if (granularity == 3) /* pages */
        return invalidate_pages(&done, get(words, IOTLB_INVALIDATION_ADDR) << PAGE_SHIFT,
                                get(words, IOTLB_INVALIDATION_AM),
                                get(words, IOTLB_INVALIDATION_IH), false);
    if (granularity)
        track_invalidate(&done);
    return granularity;
}

static bool invalidate_pasid_iotlb(const uint64_t *words) {
    struct invalidation done = {
        .what = NEED_IOTLB,
        .first_stage = true,
        .domain = (int32_t)get(words, PASID_IOTLB_INVALIDATION_DID),
        .who = (int32_t)get(words, PASID_IOTLB_INVALIDATION_PASID),
    };

    switch (get(words, PASID_IOTLB_INVALIDATION_G)) {
    case 2: /* all of a PASID */
        track_invalidate(&done);
        return true;
    case 3: /* pages */
        return invalidate_pages(&done, get(words, PASID_IOTLB_INVALIDATION_ADDR) << PAGE_SHIFT,
                                get(words, PASID_IOTLB_INVALIDATION_AM),
                                get(words, PASID_IOTLB_INVALIDATION_IH), true);
    default:
        return false;
    }
}

static bool invalidate_pasid_cache(const uint64_t *words) {
    struct invalidation done = {.what = NEED_PASID, .domain = ANY_DOMAIN, .who = ANYONE};

    switch (get(words, PASID_CACHE_INVALIDATION_G)) {
    case 1: /* a PASID */
        done.who = (int32_t)get(words, PASID_CACHE_INVALIDATION_PASID);
        /* fall through */
    case 0: /* a domain */
        done.domain = (int32_t)get(words, PASID_CACHE_INVALIDATION_DID);
        /* fall through */
    case 3:
        track_invalidate(&done);
        return true;
    default:
        return false;
    }
}

/* Follow one descriptor; false when the unit refuses it and stops. */
static bool descriptor(const uint64_t *words) {
    static const uint64_t reserved[DESCRIPTOR_TYPES][2] = DESCRIPTOR_RESERVED;
    uint64_t type = get(words, INVALIDATION_WAIT_TYPE) | get(words, INVALIDATION_WAIT_TYPE_HIGH)
                                                             << 4;

    if (!type || type >= DESCRIPTOR_TYPES || (!queue.wide && WIDE_ONLY >> type & 1) ||
        words[0] & reserved[type][0] || words[1] & reserved[type][1] ||
        (queue.wide && words[2] | words[3]))
        return false;
    switch (type) {
    case TYPE_CONTEXT_CACHE_INVALIDATION:
        return invalidate_contexts(words);
    case TYPE_IOTLB_INVALIDATION:
        return invalidate_iotlb(words);
    case TYPE_PASID_IOTLB_INVALIDATION:
        return invalidate_pasid_iotlb(words);
    case TYPE_PASID_CACHE_INVALIDATION:
        return invalidate_pasid_cache(words);
    default:
        return true;
    }
}

/* The tail moved and the unit has executed up to it, since QEMU does that inside the store. */
static void queue_run(void) {
    uint64_t size = queue.pages * PAGE_BYTES;
    uint64_t step = queue.wide ? 32 : 16;
    uint64_t tail = reg64(REG_IQT);

    tail = get(&tail, INVALIDATION_QUEUE_TAIL_QT) * 16;
    if (!queue.enabled || queue.stopped)
        return;
    queue.stopped = tail >= size || tail % step;
    while (!queue.stopped && queue.head != tail) {
        const uint64_t *at = ram_page(queue.frame + (queue.head >> PAGE_SHIFT));
        uint64_t words[4] = {0};

        for (unsigned int i = 0; at && i < step / 8; i++)
            words[i] = load(at + (queue.head & (PAGE_BYTES - 1)) / 8 + i);
        if (!at || !descriptor(words))
            queue.stopped = true;
        else
            queue.head = (queue.head + step) % size;
    }
}

static void queue_stop(void) {
    for (uint64_t i = 0; i < queue.pages; i++) {
        struct target page = {.frame = queue.frame + i, .kind = K_QUEUE, .domain = ANY_DOMAIN};
        track_unlink(&page, K_QUEUE);
    }
    queue.enabled = false;
    queue.pages = 0;
}

static void queue_start(void) {
    uint64_t address = reg64(REG_IQA);

    queue.frame = pointer(&address, INVALIDATION_QUEUE_ADDRESS_IQA) >> PAGE_SHIFT;
    queue.pages = 1ull << get(&address, INVALIDATION_QUEUE_ADDRESS_QS);
    queue.wide = get(&address, INVALIDATION_QUEUE_ADDRESS_DW);
    queue.head = 0;
    queue.enabled = true;
    for (uint64_t i = 0; i < queue.pages; i++) {
        struct target page = {.frame = queue.frame + i, .kind = K_QUEUE, .domain = ANY_DOMAIN};
        track_link(&page);
    }
    queue_run();
}

static void latch_root(void) {
    uint64_t address = reg64(REG_RTADDR);
    struct target next = {.domain = ANY_DOMAIN, .who = ANYONE};
    uint64_t mode = get(&address, ROOT_TABLE_ADDRESS_TTM);

    next.frame = pointer(&address, ROOT_TABLE_ADDRESS_RTA) >> PAGE_SHIFT;
    /* 0 legacy, 1 scalable; 2 is reserved and 3 blocks everything: no tables. */
    next.kind = mode == 0 ? K_ROOT : mode == 1 ? K_SCALABLE_ROOT : K_COUNT;
    if (next.kind != K_COUNT)
        track_link(&next);
    if (root.kind != K_COUNT)
        track_unlink(&root, K_COUNT);
    root = next;
}

static void watch_interrupts(bool on) {
    for (uint64_t i = 0; i < interrupts.pages; i++) {
        struct target page = {
            .frame = interrupts.frame + i, .kind = K_INTERRUPTS, .domain = ANY_DOMAIN};
        if (on)
            track_link(&page);
        else
            track_unlink(&page, K_INTERRUPTS);
    }
}

/* The table of 2^(S+1) interrupt entries of 16 bytes. */
static void latch_interrupts(void) {
    uint64_t address = reg64(REG_IRTA);
    uint64_t bytes = 32ull << get(&address, IRTA_S);

    watch_interrupts(false);
    interrupts.frame = pointer(&address, IRTA_IRTA) >> PAGE_SHIFT;
    interrupts.pages = bytes < PAGE_BYTES ? 1 : bytes / PAGE_BYTES;
    watch_interrupts(true);
}

static void global_command(uint64_t command) {
    bool enable = get(&command, GLOBAL_COMMAND_QIE);

    if (get(&command, GLOBAL_COMMAND_SRTP))
        latch_root();
    if (get(&command, GLOBAL_COMMAND_SIRTP))
        latch_interrupts();
    if (enable && !queue.enabled)
        queue_start();
    else if (!enable && queue.enabled)
        queue_stop();
}

/* The registers for invalidation do nothing while there is a queue. */
static void context_command(void) {
    uint64_t command = reg64(REG_CCMD);
    struct invalidation done = {.what = NEED_CONTEXT, .domain = ANY_DOMAIN, .who = ANYONE};
    uint64_t granularity = get(&command, CONTEXT_COMMAND_CIRG);

    if (!get(&command, CONTEXT_COMMAND_ICC) || queue.enabled || !granularity)
        return;
    if (granularity != 1)
        done.domain = (int32_t)get(&command, CONTEXT_COMMAND_DID);
    /* FM may only widen it. */
    if (granularity == 3)
        done.who = (int32_t)get(&command, CONTEXT_COMMAND_SID);
    track_invalidate(&done);
}

static void iotlb_command(void) {
    uint64_t command = reg64(INVALIDATION_REGISTERS + REG_IOTLB);
    uint64_t where = reg64(INVALIDATION_REGISTERS + REG_IVA);
    struct invalidation done = {.what = NEED_IOTLB, .domain = ANY_DOMAIN, .who = ANYONE};
    uint64_t granularity = get(&command, IOTLB_REGISTER_IIRG);

    if (!get(&command, IOTLB_REGISTER_IVT) || queue.enabled || !granularity)
        return;
    if (granularity != 1)
        done.domain = (int32_t)get(&command, IOTLB_REGISTER_DID);
    if (granularity == 3)
        invalidate_pages(&done, get(&where, IVA_ADDR) << PAGE_SHIFT, get(&where, IVA_AM),
                         get(&where, IVA_IH), false);
    else
        track_invalidate(&done);
}

static bool touches(unsigned int offset, unsigned int size, unsigned int reg, unsigned int width) {
    return offset < reg + width && reg < offset + size;
}

/* The store has already had its effect, so what the unit did in answer is in the log. */
void unit_store(unsigned int offset, unsigned int size, const uint8_t *bytes) {
    uint64_t value = 0, address;

    memcpy(&value, bytes, size);
    say("dmr reg %x %x %" PRIx64 "\n", offset, size, value);
    memcpy(registers + offset, bytes, size);
    if (lost || !frames)
        return;
    if (touches(offset, size, REG_GCMD, 4))
        global_command(reg64(REG_GCMD));
    /* Where the queue is was latched when it was enabled; how wide it is may not have been. */
    address = reg64(REG_IQA);
    if (queue.enabled && queue.wide != get(&address, INVALIDATION_QUEUE_ADDRESS_DW))
        queue.stopped = true;
    if (touches(offset, size, REG_FSTS, 1)) {
        value = registers[REG_FSTS];
        if (get(&value, FAULT_STATUS_IQE))
            queue.stopped = false;
    }
    if (touches(offset, size, REG_IQT, 4))
        queue_run();
    /* The bits that start these are in the upper halves. */
    if (touches(offset, size, REG_CCMD + 4, 4))
        context_command();
    if (touches(offset, size, INVALIDATION_REGISTERS + REG_IOTLB + 4, 4))
        iotlb_command();
}

void unit_reset(void) {
    track_forget_all();
    memset(registers, 0, sizeof(registers));
    memset(&queue, 0, sizeof(queue));
    memset(&interrupts, 0, sizeof(interrupts));
    root.kind = K_COUNT;
}
