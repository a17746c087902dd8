/*
 * dmarewind-recorder: a QEMU TCG plugin that writes what the guest does to the tables and
 * registers of an Intel VT-d unit into QEMU's own log.
 *
 *   -plugin dmarewind-recorder.so,ram=PATH,map=GPA:LENGTH:OFFSET;... -d plugin
 *
 * ram=   file behind the guest's RAM (memory-backend-file or -memfd with share=on)
 * map=   which guest-physical ranges the file holds, numbers as strtoull base 0 reads them
 * base=  register page of the unit (0xfed90000)
 * haw=   host address width, bits above it are not part of a table pointer (48)
 * reads= on: report register reads too, costs a callback for every load (off)
 * pages= how many table pages to watch at most (65536)
 *
 * The lines are described in docs/design.md, section 5. Because the log also receives the
 * `vtd_*` trace lines, one file holds one order: a table page's content is printed before the
 * store that links it, and the store itself before the guest can tell the unit about it.
 *
 * Every store of every vCPU comes through on_store(). Nearly all end at one bit test: `watched`
 * has a bit per guest page frame. What is behind the bit is a graph. A node is a page in one
 * role (a page may have several); each entry that points to a table is a reference to a node.
 * Roles only ever point to a lower role or level, so references cannot form a circle and
 * counting them is exact. A reference whose entry was cleared is not given up at once: the unit
 * may still hold the entry in a cache. It becomes a `drop` and is given up when invalidations
 * that cover the entry have been executed. Until then the page, and all it points to, stays
 * watched, which is exactly how far the unit can still see.
 */
#define _GNU_SOURCE
#include "qemu_api.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_SHIFT 12
#define PAGE_BYTES 4096u
#define QWORDS 512u

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

/* What a page is to the unit. Order: an entry only ever points further down this list. */
enum kind {
    K_ROOT,
    K_SCALABLE_ROOT,
    K_CONTEXT,
    K_SCALABLE_CONTEXT,
    K_PASID_DIRECTORY,
    K_PASID_TABLE,
    K_FIRST5,
    K_FIRST1 = K_FIRST5 + 4,
    K_SECOND5,
    K_SECOND1 = K_SECOND5 + 4,
    K_QUEUE,
    K_COUNT,
};

/* Numbers of decoders.events.Role. */
static const uint8_t role_of_kind[K_COUNT] = {
    [K_ROOT] = 0,        [K_SCALABLE_ROOT] = 0, [K_CONTEXT] = 1,       [K_SCALABLE_CONTEXT] = 2,
    [K_PASID_DIRECTORY] = 3, [K_PASID_TABLE] = 4,  [K_SECOND5] = 5,       [K_SECOND5 + 1] = 5,
    [K_SECOND5 + 2] = 5, [K_SECOND5 + 3] = 5,   [K_SECOND1] = 5,       [K_FIRST5] = 6,
    [K_FIRST5 + 1] = 6,  [K_FIRST5 + 2] = 6,    [K_FIRST5 + 3] = 6,    [K_FIRST1] = 6,
    [K_QUEUE] = 7,
};

/* Quadwords of one entry; 0 where entries are not looked at. */
static const uint8_t entry_qwords[K_COUNT] = {
    [K_ROOT] = 2,        [K_SCALABLE_ROOT] = 1, [K_CONTEXT] = 2,       [K_SCALABLE_CONTEXT] = 4,
    [K_PASID_DIRECTORY] = 1, [K_PASID_TABLE] = 8,  [K_FIRST5] = 1,        [K_FIRST5 + 1] = 1,
    [K_FIRST5 + 2] = 1,  [K_FIRST5 + 3] = 1,    [K_FIRST1] = 0,        [K_SECOND5] = 1,
    [K_SECOND5 + 1] = 1, [K_SECOND5 + 2] = 1,   [K_SECOND5 + 3] = 1,   [K_SECOND1] = 0,
    [K_QUEUE] = 0,
};

#define ANY_DOMAIN (-1)

struct target {
    uint64_t frame;
    uint64_t iova;
    int32_t domain;
    enum kind kind;
};
/* A PASID directory spans up to 2^14 entries of 8 bytes. */
#define MAX_TARGETS 32

struct node {
    uint32_t live;    /* entries that point here now */
    uint32_t pending; /* entries that did, and may still be cached */
    int32_t domain;   /* domain id the tables belong to, ANY_DOMAIN when several */
    uint64_t iova;    /* first address that is translated through this table */
};

struct page {
    uint64_t frame;
    struct page *next, *previous;
    struct node nodes[K_COUNT];
    uint64_t shadow[QWORDS]; /* content as last reported */
};

/* What has to be invalidated before a cleared entry is really gone. */
enum { NEED_CONTEXT = 1, NEED_PASID = 2, NEED_IOTLB = 4 };

struct drop {
    struct target target;
    uint8_t need;
};

struct range {
    uint64_t gpa, length, offset;
};

struct invalidation {
    uint8_t what;     /* one of NEED_* */
    int32_t domain;   /* ANY_DOMAIN: all */
    uint64_t first, last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t base_frame = 0xfed90000ull >> PAGE_SHIFT;
static uint64_t address_mask = ((1ull << 48) - 1) & ~0xfffull;
static bool reads;
static size_t max_pages = 65536;
static char *ram_path;
static struct range ranges[16];
static size_t range_count;

static uint8_t *ram; /* the whole file; NULL until mapped */
static size_t ram_bytes;
static bool lost;

static uint8_t *watched; /* a bit per page frame */
static struct page **pages;
static uint64_t frames;
static struct page *all_pages;
static size_t page_count;

static struct drop *drops;
static size_t drop_count, drop_capacity;

static uint8_t registers[PAGE_BYTES]; /* what was written, not what reads back */
static bool queue_enabled;
static uint64_t queue_frame, queue_pages, queue_tail;
static struct target root = {.kind = K_COUNT};

/* The first stores are compared with RAM, to notice a wrong `map=` before it does harm. */
#define GUARD_STORES 4096
static unsigned int guard_left = GUARD_STORES, guard_bad;

static void track_link(const struct target *target);
static void track_release(struct page *page, enum kind kind);

/* ---- output: every line is one call, since other threads write to the same log ---- */

static char line[64 + QWORDS * 24];

static void give_up(const char *reason)
{
    if (!lost) {
        lost = true;
        snprintf(line, sizeof(line), "dmr lost %s\n", reason);
        qemu_plugin_outs(line);
    }
}

/* ---- guest RAM ---- */

static const uint64_t *ram_page(uint64_t frame)
{
    uint64_t gpa = frame << PAGE_SHIFT;

    for (size_t i = 0; i < range_count; i++) {
        if (gpa >= ranges[i].gpa && gpa - ranges[i].gpa < ranges[i].length)
            return (const uint64_t *)(ram + ranges[i].offset + (gpa - ranges[i].gpa));
    }
    return NULL;
}

static uint64_t load(const uint64_t *qword)
{
    return __atomic_load_n(qword, __ATOMIC_RELAXED);
}

/* Map the RAM file; false when it is not there yet or shorter than the map says. */
static bool map_ram(void)
{
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
    int fd = open(ram_path, O_RDONLY | O_CLOEXEC);
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
    watched = calloc(1, (top >> PAGE_SHIFT) / 8 + 1);
    pages = calloc((top >> PAGE_SHIFT) + 1, sizeof(*pages));
    if (!watched || !pages) {
        munmap(at, end);
        return false;
    }
    ram_bytes = end;
    ram = at;
    __atomic_store_n(&frames, top >> PAGE_SHIFT, __ATOMIC_RELEASE);
    return true;
}

static void print_snapshot(const struct page *page, enum kind kind)
{
    const uint64_t *content = ram_page(page->frame);
    unsigned int level = 0;

    if (kind >= K_FIRST5 && kind <= K_FIRST1)
        level = K_FIRST1 - kind + 1;
    else if (kind >= K_SECOND5 && kind <= K_SECOND1)
        level = K_SECOND1 - kind + 1;
    int at = snprintf(line, sizeof(line), "dmr snap %" PRIx64 " %x %x", page->frame << PAGE_SHIFT,
                      role_of_kind[kind], level);
    /* From RAM and not from the shadow: the unit itself sets accessed and dirty bits. */
    for (unsigned int i = 0; i < QWORDS; i++) {
        uint64_t qword = load(content + i);
        if (qword)
            at += snprintf(line + at, sizeof(line) - (size_t)at, " %x:%" PRIx64, i, qword);
    }
    line[at] = '\n';
    line[at + 1] = 0;
    qemu_plugin_outs(line);
}

/* ---- entries: which tables does an entry point to? ---- */

static size_t point(struct target *to, uint64_t pointer, enum kind kind, int32_t domain,
                    uint64_t iova)
{
    to->frame = (pointer & address_mask) >> PAGE_SHIFT;
    to->kind = kind;
    to->domain = domain;
    to->iova = iova;
    return 1;
}

/*
 * List what one entry of a table points to. Only what decides where a pointer leads is looked
 * at: an entry that the unit would refuse for a reserved bit is followed all the same.
 */
static size_t targets_of(enum kind kind, const struct node *node, unsigned int index,
                         const uint64_t *entry, struct target *to)
{
    uint64_t q0 = entry[0];
    unsigned int level, width;
    size_t count = 0;

    switch (kind) {
    case K_ROOT:
        return q0 & 1 ? point(to, q0, K_CONTEXT, ANY_DOMAIN, 0) : 0;
    case K_SCALABLE_ROOT:
        return q0 & 1 ? point(to, q0, K_SCALABLE_CONTEXT, ANY_DOMAIN, 0) : 0;
    case K_CONTEXT:
        width = entry[1] & 7;
        /* Translation type 2 is pass-through: the pointer means nothing. */
        if (!(q0 & 1) || ((q0 >> 2) & 3) > 1 || width < 1 || width > 3)
            return 0;
        return point(to, q0, (enum kind)(K_SECOND1 - (width + 1)), (entry[1] >> 8) & 0xffff, 0);
    case K_SCALABLE_CONTEXT:
        if (!(q0 & 1))
            return 0;
        /* 2^(PDTS+7) entries of 8 bytes, at least one page. */
        width = (unsigned int)(q0 >> 9) & 7;
        for (unsigned int i = 0; i < (width < 2 ? 1 : 1u << (width - 2)); i++)
            count += point(to + count, q0 + i * PAGE_BYTES, K_PASID_DIRECTORY, ANY_DOMAIN, 0);
        return count;
    case K_PASID_DIRECTORY:
        return q0 & 1 ? point(to, q0, K_PASID_TABLE, ANY_DOMAIN, 0) : 0;
    case K_PASID_TABLE:
        if (!(q0 & 1))
            return 0;
        width = (q0 >> 2) & 7;
        level = (q0 >> 6) & 7; /* PGTT: 1 first stage, 2 second stage, 3 nested */
        /*
         * In a nested entry the first-stage pointer is itself translated. It is followed as if
         * the second stage were one to one: QEMU (up to 11) refuses nested entries.
         */
        if ((level == 1 || level == 3) && ((entry[2] >> 2) & 3) < 2)
            count += point(to + count, entry[2],
                           (entry[2] >> 2) & 1 ? K_FIRST5 : (enum kind)(K_FIRST5 + 1),
                           entry[1] & 0xffff, 0);
        if ((level == 2 || level == 3) && width >= 1 && width <= 3)
            count += point(to + count, q0, (enum kind)(K_SECOND1 - (width + 1)),
                           entry[1] & 0xffff, 0);
        return count;
    case K_FIRST1:
    case K_SECOND1:
    case K_QUEUE:
    case K_COUNT:
        return 0;
    default:
        break;
    }
    bool first = kind < K_FIRST1;
    /* Bit 7 makes a leaf at level 2 and 3 and is reserved above: no table either way. */
    if (q0 & 0x80 || !(q0 & (first ? 1 : 7)))
        return 0;
    level = (unsigned int)((first ? K_FIRST1 : K_SECOND1) - kind) + 1;
    return point(to, q0, (enum kind)(kind + 1), node->domain,
                 node->iova + ((uint64_t)index << (PAGE_SHIFT + 9 * (level - 1))));
}

static bool same_target(const struct target *a, const struct target *b)
{
    return a->frame == b->frame && a->kind == b->kind && a->domain == b->domain;
}

/* ---- the graph ---- */

static void forget_page(struct page *page)
{
    snprintf(line, sizeof(line), "dmr rel %" PRIx64 "\n", page->frame << PAGE_SHIFT);
    qemu_plugin_outs(line);
    watched[page->frame >> 3] &= (uint8_t) ~(1u << (page->frame & 7));
    pages[page->frame] = NULL;
    if (page->next)
        page->next->previous = page->previous;
    if (page->previous)
        page->previous->next = page->next;
    else
        all_pages = page->next;
    page_count--;
    free(page);
}

static struct page *page_of(uint64_t frame)
{
    const uint64_t *content = frame < frames ? ram_page(frame) : NULL;
    struct page *page;

    if (!content || pages[frame])
        return content ? pages[frame] : NULL;
    page = page_count < max_pages ? calloc(1, sizeof(*page)) : NULL;
    if (!page) {
        give_up("the guest uses more table pages than pages= allows");
        return NULL;
    }
    page->frame = frame;
    for (unsigned int i = 0; i < QWORDS; i++)
        page->shadow[i] = load(content + i);
    page->next = all_pages;
    if (all_pages)
        all_pages->previous = page;
    all_pages = page;
    page_count++;
    pages[frame] = page;
    watched[frame >> 3] |= (uint8_t)(1u << (frame & 7));
    return page;
}

/* Follow all entries of a table that has just come into use. */
static void follow(struct page *page, enum kind kind)
{
    struct target to[MAX_TARGETS];
    unsigned int step = entry_qwords[kind];

    for (unsigned int i = 0; step && i < QWORDS; i += step) {
        size_t count = targets_of(kind, &page->nodes[kind], i / step, &page->shadow[i], to);
        for (size_t t = 0; t < count; t++)
            track_link(&to[t]);
    }
}

/* Two domains share these tables: either one's invalidation may cover them. */
static void mix_domains(struct page *page, enum kind kind)
{
    struct target to[MAX_TARGETS];
    unsigned int step = entry_qwords[kind];

    if (page->nodes[kind].domain == ANY_DOMAIN)
        return;
    page->nodes[kind].domain = ANY_DOMAIN;
    for (unsigned int i = 0; step && i < QWORDS; i += step) {
        size_t count = targets_of(kind, &page->nodes[kind], i / step, &page->shadow[i], to);
        for (size_t t = 0; t < count; t++) {
            if (to[t].frame < frames && pages[to[t].frame])
                mix_domains(pages[to[t].frame], to[t].kind);
        }
    }
}

/* An entry points to a table: snapshot it, deepest tables first, if the unit did not see it. */
static void track_link(const struct target *target)
{
    struct page *page = page_of(target->frame);

    if (!page)
        return;
    struct node *node = &page->nodes[target->kind];
    bool known = node->live + node->pending > 0;
    if (node->live++ > 0 || known) {
        if (node->domain != target->domain)
            mix_domains(page, target->kind);
        if (node->live > 1)
            return;
    } else {
        node->domain = target->domain;
        node->iova = target->iova;
        follow(page, target->kind);
    }
    print_snapshot(page, target->kind);
}

static uint8_t needs_of_link(enum kind parent)
{
    switch (parent) {
    case K_ROOT:
    case K_SCALABLE_ROOT:
    case K_CONTEXT:
    case K_SCALABLE_CONTEXT:
    case K_COUNT: /* the register itself */
        return NEED_CONTEXT | NEED_IOTLB;
    case K_PASID_DIRECTORY:
    case K_PASID_TABLE:
        return NEED_PASID | NEED_IOTLB;
    default:
        return NEED_IOTLB;
    }
}

/* An entry of `parent` no longer points to a table; caches may not know. */
static void track_unlink(const struct target *target, enum kind parent)
{
    struct page *page = target->frame < frames ? pages[target->frame] : NULL;

    /* Not there when the page was outside RAM. */
    if (!page || !page->nodes[target->kind].live)
        return;
    if (drop_count == drop_capacity) {
        size_t capacity = drop_capacity ? drop_capacity * 2 : 64;
        struct drop *more = realloc(drops, capacity * sizeof(*drops));
        if (!more) {
            give_up("out of memory");
            return;
        }
        drops = more;
        drop_capacity = capacity;
    }
    page->nodes[target->kind].live--;
    page->nodes[target->kind].pending++;
    drops[drop_count].target = *target;
    drops[drop_count].target.domain = page->nodes[target->kind].domain;
    drops[drop_count].need = needs_of_link(parent);
    drop_count++;
}

/* The last reference is gone: so are those of its entries. */
static void track_release(struct page *page, enum kind kind)
{
    struct target to[MAX_TARGETS];
    unsigned int step = entry_qwords[kind];
    bool used = false;

    page->nodes[kind].pending++; /* keep the page while its entries may point back to it */
    for (unsigned int i = 0; step && i < QWORDS; i += step) {
        size_t count = targets_of(kind, &page->nodes[kind], i / step, &page->shadow[i], to);
        for (size_t t = 0; t < count; t++) {
            struct page *child = to[t].frame < frames ? pages[to[t].frame] : NULL;
            struct node *node = child ? &child->nodes[to[t].kind] : NULL;
            if (node && node->live && --node->live + node->pending == 0)
                track_release(child, to[t].kind);
        }
    }
    page->nodes[kind].pending--;
    for (int k = 0; k < K_COUNT; k++)
        used |= page->nodes[k].live + page->nodes[k].pending > 0;
    if (!used)
        forget_page(page);
}

static unsigned int bits_of_kind(enum kind kind)
{
    if (kind >= K_FIRST5 && kind <= K_FIRST1)
        return PAGE_SHIFT + 9 * (unsigned int)(K_FIRST1 - kind + 1);
    if (kind >= K_SECOND5 && kind <= K_SECOND1)
        return PAGE_SHIFT + 9 * (unsigned int)(K_SECOND1 - kind + 1);
    return 63;
}

static void invalidate(const struct invalidation *done)
{
    size_t kept = 0, count = drop_count;

    for (size_t i = 0; i < count; i++) {
        struct drop drop = drops[i];
        uint64_t first = drop.target.iova;
        uint64_t last = first + ((1ull << bits_of_kind(drop.target.kind)) - 1);
        bool covers = done->domain == ANY_DOMAIN || drop.target.domain == ANY_DOMAIN ||
                      done->domain == drop.target.domain;

        /* An IOTLB fill may follow until the entry above it is gone: keep the order. */
        if (done->what == NEED_IOTLB)
            covers = covers && drop.need == NEED_IOTLB && done->first <= last &&
                     done->last >= first;
        if (covers)
            drop.need &= (uint8_t)~done->what;
        if (drop.need) {
            drops[kept++] = drop;
            continue;
        }
        struct page *page = pages[drop.target.frame];
        struct node *node = &page->nodes[drop.target.kind];
        if (--node->pending + node->live == 0)
            track_release(page, drop.target.kind);
    }
    drop_count = kept;
}

/* ---- the invalidation queue ---- */

static void descriptor(uint64_t q0, uint64_t q1)
{
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
    invalidate(&done);
}

static uint64_t reg64(unsigned int offset)
{
    uint64_t value;

    memcpy(&value, registers + offset, sizeof(value));
    return value;
}

/* The tail moved and the unit has executed up to it, since QEMU does that inside the store. */
static void queue_run(void)
{
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

static void queue_stop(void)
{
    for (uint64_t i = 0; i < queue_pages; i++) {
        struct page *page = queue_frame + i < frames ? pages[queue_frame + i] : NULL;
        if (page && page->nodes[K_QUEUE].live && --page->nodes[K_QUEUE].live == 0)
            track_release(page, K_QUEUE);
    }
    queue_enabled = false;
    queue_pages = 0;
}

static void queue_start(void)
{
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

/* ---- stores ---- */

static void latch_root(void)
{
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

static bool touches(unsigned int offset, unsigned int size, unsigned int reg, unsigned int width)
{
    return offset < reg + width && reg < offset + size;
}

/* The store has already had its effect, so what the unit did in answer is in the log. */
static void register_store(unsigned int offset, unsigned int size, const uint8_t *bytes)
{
    uint64_t value = 0;

    memcpy(&value, bytes, size);
    snprintf(line, sizeof(line), "dmr reg %x %x %" PRIx64 "\n", offset, size, value);
    qemu_plugin_outs(line);
    memcpy(registers + offset, bytes, size);
    if (lost || !ram)
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
        invalidate(&done);
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
            invalidate(&done);
    }
}

/*
 * Report a store to a watched page. The content is read back from RAM, as the value that the
 * CPU reports is not the outcome for every read-modify-write instruction.
 */
static void table_store(struct page *page, unsigned int offset, unsigned int size)
{
    const uint64_t *content = ram_page(page->frame);
    unsigned int first = offset / 8, last = (offset + size - 1) / 8;
    uint64_t after[QWORDS];
    struct target was[MAX_TARGETS], is[MAX_TARGETS];
    bool queue_only = true;

    for (int k = 0; k < K_QUEUE; k++)
        queue_only &= page->nodes[k].live + page->nodes[k].pending == 0;
    memcpy(after, page->shadow, sizeof(after));
    for (unsigned int i = first; i <= last; i++)
        after[i] = load(content + i);

    /* New tables first, so that nothing ever points to a table not yet shown... */
    for (int phase = 0; phase < 2; phase++) {
        for (int k = 0; k < K_COUNT; k++) {
            enum kind kind = (enum kind)k;
            struct node *node = &page->nodes[kind];
            unsigned int step = entry_qwords[kind];
            if (!step || node->live + node->pending == 0)
                continue;
            for (unsigned int i = first - first % step; i <= last; i += step) {
                size_t olds = targets_of(kind, node, i / step, &page->shadow[i], was);
                size_t news = targets_of(kind, node, i / step, &after[i], is);
                for (size_t t = 0; t < (phase ? olds : news); t++) {
                    const struct target *one = phase ? &was[t] : &is[t];
                    bool both = false;
                    for (size_t o = 0; o < (phase ? news : olds); o++)
                        both |= same_target(one, phase ? &is[o] : &was[o]);
                    if (both)
                        continue;
                    if (phase)
                        track_unlink(one, kind);
                    else
                        track_link(one);
                }
            }
        }
        /* ...then the store itself, then what it cut off. */
        for (unsigned int i = first; !phase && i <= last; i++) {
            /* Linux copies descriptors with overlapping stores: half of them change nothing. */
            if (queue_only && after[i] == page->shadow[i])
                continue;
            snprintf(line, sizeof(line), "dmr st %" PRIx64 " 8 %" PRIx64 "\n",
                     (page->frame << PAGE_SHIFT) + i * 8, after[i]);
            qemu_plugin_outs(line);
        }
    }
    memcpy(page->shadow, after, sizeof(after));
}

static void guard(uint64_t physical, unsigned int size, qemu_plugin_meminfo_t info)
{
    qemu_plugin_mem_value value = qemu_plugin_mem_get_value(info);
    const uint64_t *content = ram_page(physical >> PAGE_SHIFT);

    /* Below 1 MiB the chipset may send stores elsewhere; RAM may also not be all there is. */
    if (physical < 0x100000 || !content || size > 8)
        return;
    guard_left--;
    if (memcmp((const uint8_t *)content + (physical & (PAGE_BYTES - 1)), &value.data, size))
        guard_bad++;
    if (guard_bad > GUARD_STORES / 16)
        give_up("ram map does not match what the guest stores; check ram= and map=");
}

/* The rare part of on_store(): a store to a watched page or to the unit. */
static void piece(uint64_t physical, unsigned int size, const uint8_t *bytes)
{
    uint64_t frame = physical >> PAGE_SHIFT;

    pthread_mutex_lock(&lock);
    if (frame == base_frame) {
        if (size <= 8)
            register_store((unsigned int)physical & (PAGE_BYTES - 1), size, bytes);
    } else if (!lost && frame < frames && pages[frame]) {
        table_store(pages[frame], (unsigned int)physical & (PAGE_BYTES - 1), size);
    }
    pthread_mutex_unlock(&lock);
}

static bool interesting(uint64_t physical)
{
    uint64_t frame = physical >> PAGE_SHIFT;

    if (__builtin_expect(frame < frames, 1))
        return __builtin_expect(watched[frame >> 3] >> (frame & 7) & 1, 0);
    return frame == base_frame;
}

static void on_store(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data)
{
    const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    unsigned int offset = (unsigned int)vaddr & (PAGE_BYTES - 1);
    qemu_plugin_mem_value value;
    unsigned int size, rest;

    (void)vcpu;
    (void)data;
    if (!where)
        return;
    uint64_t physical = qemu_plugin_hwaddr_phys_addr(where);
    if (__builtin_expect(guard_left && frames && !lost, 0) && !qemu_plugin_hwaddr_is_io(where))
        guard(physical, 1u << qemu_plugin_mem_size_shift(info), info);
    /* No store is longer than 16 bytes, so most need not be asked for their size. */
    if (!interesting(physical) && __builtin_expect(offset <= PAGE_BYTES - 16, 1))
        return;
    size = 1u << qemu_plugin_mem_size_shift(info);
    rest = PAGE_BYTES - offset;
    value = qemu_plugin_mem_get_value(info);
    if (interesting(physical))
        piece(physical, size < rest ? size : rest, (const uint8_t *)&value.data);
    if (size <= rest)
        return;
    where = qemu_plugin_get_hwaddr(info, vaddr + rest);
    if (where && interesting(physical = qemu_plugin_hwaddr_phys_addr(where)))
        piece(physical, size - rest, (const uint8_t *)&value.data + rest);
}

static void on_load(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data)
{
    const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    qemu_plugin_mem_value value;
    uint64_t physical, bits = 0;
    unsigned int size;

    (void)vcpu;
    (void)data;
    if (!where)
        return;
    physical = qemu_plugin_hwaddr_phys_addr(where);
    if (__builtin_expect(physical >> PAGE_SHIFT != base_frame, 1))
        return;
    size = 1u << qemu_plugin_mem_size_shift(info);
    if (size > 8)
        return;
    value = qemu_plugin_mem_get_value(info);
    memcpy(&bits, &value.data, size);
    pthread_mutex_lock(&lock);
    snprintf(line, sizeof(line), "dmr rd %x %x %" PRIx64 "\n",
             (unsigned int)physical & (PAGE_BYTES - 1), size, bits);
    qemu_plugin_outs(line);
    pthread_mutex_unlock(&lock);
}

/* ---- life of the machine ---- */

/* The processor starts at the reset vector: the unit was reset and reaches nothing. */
static void on_reset(unsigned int vcpu, void *data)
{
    (void)vcpu;
    (void)data;
    pthread_mutex_lock(&lock);
    while (all_pages)
        forget_page(all_pages);
    drop_count = 0;
    memset(registers, 0, sizeof(registers));
    queue_enabled = false;
    queue_pages = 0;
    root.kind = K_COUNT;
    if (!lost && !map_ram())
        give_up("cannot map the guest's RAM; check ram= and map=");
    pthread_mutex_unlock(&lock);
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t count = qemu_plugin_tb_n_insns(tb);

    (void)id;
    if (qemu_plugin_tb_vaddr(tb) == 0xfffffff0)
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_reset, QEMU_PLUGIN_CB_NO_REGS, NULL);
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_register_vcpu_mem_cb(insn, on_store, QEMU_PLUGIN_CB_NO_REGS,
                                         QEMU_PLUGIN_MEM_W, NULL);
        if (reads)
            qemu_plugin_register_vcpu_mem_cb(insn, on_load, QEMU_PLUGIN_CB_NO_REGS,
                                             QEMU_PLUGIN_MEM_R, NULL);
    }
}

/* Parse "GPA:LENGTH:OFFSET;..."; false when it is not that. */
static bool parse_map(const char *text)
{
    while (*text) {
        uint64_t numbers[3];
        for (int i = 0; i < 3; i++) {
            char *end;
            errno = 0;
            numbers[i] = strtoull(text, &end, 0);
            if (errno || end == text || (i < 2 && *end != ':') ||
                (i == 2 && *end && *end != ';') || numbers[i] % PAGE_BYTES)
                return false;
            text = *end ? end + 1 : end;
        }
        if (range_count == sizeof(ranges) / sizeof(ranges[0]) ||
            numbers[0] + numbers[1] > 1ull << 48 || numbers[2] + numbers[1] > 1ull << 48)
            return false;
        ranges[range_count++] = (struct range){numbers[0], numbers[1], numbers[2]};
    }
    return range_count > 0;
}

static bool parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoull(text, &end, 0);
    return !errno && *text && !*end && *number >= least && *number <= most;
}

RECORDER_EXPORT int qemu_plugin_version = 4;

RECORDER_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                        char **argv)
{
    if (!info->system_emulation || strcmp(info->target_name, "x86_64") != 0) {
        fprintf(stderr, "dmarewind-recorder: works with qemu-system-x86_64 only\n");
        return -1;
    }
    for (int i = 0; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        size_t length = value ? (size_t)(value - argv[i]) : 0;
        uint64_t number;
        bool fine = false;

        if (!value) {
        } else if (value++, length == 4 && !strncmp(argv[i], "base", 4)) {
            fine = parse_number(value, PAGE_BYTES, 1ull << 48, &number);
            base_frame = number >> PAGE_SHIFT;
        } else if (length == 3 && !strncmp(argv[i], "haw", 3)) {
            fine = parse_number(value, 32, 52, &number);
            if (fine)
                address_mask = ((1ull << number) - 1) & ~0xfffull;
        } else if (length == 3 && !strncmp(argv[i], "ram", 3)) {
            free(ram_path);
            ram_path = strdup(value);
            fine = ram_path != NULL;
        } else if (length == 3 && !strncmp(argv[i], "map", 3)) {
            fine = parse_map(value);
        } else if (length == 5 && !strncmp(argv[i], "pages", 5)) {
            fine = parse_number(value, 1, 1u << 24, &number);
            max_pages = (size_t)number;
        } else if (length == 5 && !strncmp(argv[i], "reads", 5)) {
            reads = !strcmp(value, "on");
            fine = reads || !strcmp(value, "off");
        }
        if (!fine) {
            fprintf(stderr, "dmarewind-recorder: cannot understand the argument %s\n", argv[i]);
            return -1;
        }
    }
    if (!ram_path || !range_count) {
        fprintf(stderr, "dmarewind-recorder: needs ram=PATH and map=GPA:LENGTH:OFFSET;...\n");
        return -1;
    }
    qemu_plugin_outs("dmr begin 1\n");
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    return 0;
}
