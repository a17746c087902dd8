/*
 * Follow a virtio-iommu: what its driver negotiates, where its request queue is, what the device
 * answers (virtio 1.3: 4.1.4 for the registers, 2.7 for split rings).
 *
 * QEMU handles a notification inside the store (virtio-iommu-pci has no ioeventfd), so when the
 * store is seen the answers lie in the used ring, and the processor has not gone on.
 */
#include "qemu_api.h"
#include "recorder.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Names that QEMU gives to the parts of the BAR; each part is aligned to a page (virtio-pci.c). */
#define COMMON_REGION "virtio-pci-common-virtio-iommu"
#define NOTIFY_REGION "virtio-pci-notify-virtio-iommu"
#define CONFIG_REGION "virtio-pci-device-virtio-iommu"

/* Registers of the common part. */
enum {
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    DEVICE_STATUS = 20,
    QUEUE_SELECT = 22,
    QUEUE_SIZE = 24,
    QUEUE_ENABLE = 28,
    QUEUE_ADDRESSES = 32, /* of the descriptors, the available and the used ring */
    QUEUE_RESET = 58,
    COMMON_BYTES = 64,
};

enum { STATUS_FEATURES_OK = 8 };
#define FEATURE_PACKED (1ull << 34)

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 }; /* flags of a descriptor */

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

#define MOST_ENTRIES 1024 /* of a queue and of a chain: VIRTQUEUE_MAX_SIZE of QEMU */
#define DEFAULT_ENTRIES 256
/* Bytes shown of a request; the longest one takes 72, its answer 516. */
#define MOST_SHOWN 2048u

static uint8_t common[COMMON_BYTES]; /* what was written */
static uint32_t accepted[2];
static uint8_t status;

/* The request queue; `seen` entries of its used ring were reported. */
static struct {
    uint64_t addresses[3];
    uint16_t size, seen;
    bool enabled;
} queue;

struct bytes {
    uint64_t length; /* of which the first MOST_SHOWN are kept */
    uint8_t data[MOST_SHOWN];
};

static uint32_t number(const uint8_t *bytes, unsigned int size) {
    uint32_t value = 0;

    memcpy(&value, bytes, size);
    return value;
}

/* Copy guest memory; false when some of it is no RAM. */
static bool copy(uint64_t address, void *to, uint64_t size) {
    uint8_t *at = to;

    while (size) {
        const uint64_t *page = ram_page(address >> PAGE_SHIFT);
        uint64_t offset = address & (PAGE_BYTES - 1);
        uint64_t piece = size < PAGE_BYTES - offset ? size : PAGE_BYTES - offset;

        if (!page)
            return false;
        memcpy(at, (const uint8_t *)page + offset, piece);
        at += piece;
        address += piece;
        size -= piece;
    }
    return true;
}

/* Add what a descriptor points to, at most `limit` bytes in all. */
static bool collect(struct bytes *to, const struct descriptor *from, uint64_t limit) {
    uint64_t left = to->length < limit ? limit - to->length : 0;
    uint64_t piece = from->length < left ? from->length : left;

    if (!copy(from->address, to->data + (piece ? to->length : 0), piece))
        return false;
    to->length += from->length;
    return true;
}

/* Write bytes as the text form does: hexadecimal, zeros at their end as a number. */
static void spell(char *text, const uint8_t *data, uint64_t length) {
    uint64_t kept = length;

    while (kept && !data[kept - 1])
        kept--;
    if (length - kept < 8)
        kept = length;
    for (uint64_t i = 0; i < kept; i++)
        text += sprintf(text, "%02x", data[i]);
    if (kept < length)
        text += sprintf(text, "+%" PRIx64, length - kept);
    if (!length)
        *text++ = '-';
    *text = 0;
}

/* Report a chain that the device has used, of whose writable part it wrote `written` bytes. */
static bool request(uint16_t head, uint64_t written) {
    static struct bytes readable, writable;
    static char read_text[2 * MOST_SHOWN + 24], written_text[2 * MOST_SHOWN + 24];
    uint64_t table = queue.addresses[0];
    uint32_t entries = queue.size, index = head;
    struct descriptor at;

    readable.length = writable.length = 0;
    if (written > MOST_SHOWN)
        return false;
    for (unsigned int steps = 0;; steps++) {
        if (steps == MOST_ENTRIES || index >= entries ||
            !copy(table + (uint64_t)index * sizeof(at), &at, sizeof(at)))
            return false;
        if (!steps && at.flags & INDIRECT) { /* in a table it means nothing to QEMU */
            if (at.length % sizeof(at))
                return false;
            table = at.address;
            entries = at.length / sizeof(at);
            index = 0;
            continue;
        }
        if (!(at.flags & WRITE ? collect(&writable, &at, written)
                               : collect(&readable, &at, MOST_SHOWN)))
            return false;
        if (!(at.flags & NEXT))
            break;
        index = at.next;
    }
    if (writable.length < written || writable.length > UINT32_MAX)
        return false;
    spell(read_text, readable.data, readable.length < MOST_SHOWN ? readable.length : MOST_SHOWN);
    spell(written_text, writable.data, written);
    say("dmr vreq %s %" PRIx64 " %s\n", read_text, writable.length, written_text);
    return true;
}

/* Report what has come into the used ring. */
static void completed(void) {
    uint64_t used = queue.addresses[2];
    uint16_t next;

    if (!copy(used + 2, &next, sizeof(next)) || (uint16_t)(next - queue.seen) > queue.size) {
        give_up("the used ring of the virtio-iommu makes no sense");
        return;
    }
    for (; queue.seen != next; queue.seen++) {
        uint32_t element[2]; /* head of the chain, bytes written */

        if (!copy(used + 4 + queue.seen % queue.size * sizeof(element), element, sizeof(element)) ||
            element[0] >= queue.size || !request((uint16_t)element[0], element[1])) {
            give_up("a request to the virtio-iommu makes no sense");
            return;
        }
    }
}

static void enable(void) {
    if (queue.enabled)
        return;
    if (((uint64_t)accepted[1] << 32 | accepted[0]) & FEATURE_PACKED) {
        give_up("packed ring");
        return;
    }
    if (!queue.size)
        queue.size = DEFAULT_ENTRIES;
    if (queue.size > MOST_ENTRIES || queue.size & (queue.size - 1)) {
        give_up("the size of the virtio-iommu's queue makes no sense");
        return;
    }
    queue.seen = 0;
    queue.enabled = true;
}

static void forget_queue(void) {
    memset(&queue, 0, sizeof(queue));
}

static void set_status(uint8_t next) {
    uint8_t before = status;

    status = next;
    if (!next) {
        virtio_reset();
        say("dmr vrst\n");
    } else if (next & ~before & STATUS_FEATURES_OK) {
        say("dmr vfeat %" PRIx64 "\n", (uint64_t)accepted[1] << 32 | accepted[0]);
    }
}

static void common_store(unsigned int offset, unsigned int size) {
    unsigned int end = offset + size;

#define WRITTEN(reg, width) (offset < (reg) + (width) && (reg) < end)
    if (WRITTEN(DRIVER_FEATURE, 4) && number(common + DRIVER_FEATURE_SELECT, 4) < 2)
        accepted[number(common + DRIVER_FEATURE_SELECT, 4)] = number(common + DRIVER_FEATURE, 4);
    if (WRITTEN(DEVICE_STATUS, 1))
        set_status(common[DEVICE_STATUS]);
    if (number(common + QUEUE_SELECT, 2)) /* not the request queue */
        return;
    if (WRITTEN(QUEUE_SIZE, 2))
        queue.size = (uint16_t)number(common + QUEUE_SIZE, 2);
    if (WRITTEN(QUEUE_ADDRESSES, 24)) {
        unsigned int first = offset > QUEUE_ADDRESSES ? offset : QUEUE_ADDRESSES;
        unsigned int last = end < QUEUE_ADDRESSES + 24 ? end : QUEUE_ADDRESSES + 24;
        memcpy((uint8_t *)queue.addresses + (first - QUEUE_ADDRESSES), common + first,
               last - first);
    }
    if (WRITTEN(QUEUE_ENABLE, 2) && number(common + QUEUE_ENABLE, 2) == 1)
        enable();
    if (WRITTEN(QUEUE_RESET, 2) && number(common + QUEUE_RESET, 2) == 1)
        forget_queue();
#undef WRITTEN
}

/* A store to a device. It has already had its effect. */
void virtio_store(const char *region, unsigned int offset, unsigned int size,
                  const uint8_t *bytes) {
    uint64_t value = 0;

    if (strncmp(region, "virtio-pci-", 11) != 0 || size > 8)
        return;
    if (!strcmp(region, CONFIG_REGION)) {
        memcpy(&value, bytes, size);
        say("dmr vcfg %x %x %" PRIx64 "\n", offset, size, value);
    } else if (lost || !frames) {
        return;
    } else if (!strcmp(region, NOTIFY_REGION)) {
        /* Whichever queue it is for: nothing is used in the request queue but after its own. */
        if (queue.enabled)
            completed();
    } else if (!strcmp(region, COMMON_REGION) && offset + size <= COMMON_BYTES) {
        memcpy(common + offset, bytes, size);
        common_store(offset, size);
    }
}

void virtio_reset(void) {
    memset(common + QUEUE_SELECT, 0, 2); /* the other selectors survive in QEMU */
    memset(accepted, 0, sizeof(accepted));
    status = 0;
    forget_queue();
}
