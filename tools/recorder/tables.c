/*
 * Keep the graph of what the unit can reach.
 *
 * A node is a page in one role (a page may have several); each entry that points to a table is a
 * reference to a node. Roles only ever point to a lower role or level, so references cannot form
 * a circle and counting them is exact. A reference whose entry was cleared is not given up at
 * once: the unit may still hold the entry in a cache. It becomes a `drop` and is given up when
 * invalidations that cover the entry have been executed. When that was the last reference to a
 * table its own entries are as good as cleared, and become drops in turn: the unit may have cached
 * them too, under tags of their own. So what is watched is how far the unit can still see
 * (docs/design.md, section 2). In doubt a page stays watched.
 */
#include "recorder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

uint8_t *watched;
size_t max_pages = 65536;

static struct page **pages; /* by frame */
static struct page *all_pages;
static size_t page_count;

/* References to give up once all that they need has been invalidated. */
struct drop {
    struct target target;
    uint32_t count;
    uint8_t need;
};

/*
 * References that find no room are `held`: their nodes count them, and they are given up once
 * everything that any of them needs has been invalidated globally.
 */
#define MAX_DROPS 4096
static struct drop drops[MAX_DROPS];
static size_t drop_count;
static uint8_t held_need;

/* Make room for as many pages as RAM has; the page of the registers may lie among them. */
bool track_start(uint64_t register_frame) {
    watched = calloc(1, frames / 8 + 1);
    pages = calloc(frames + 1, sizeof(struct page *));
    if (!watched || !pages)
        return false;
    if (register_frame < frames)
        watched[register_frame >> 3] |= (uint8_t)(1u << (register_frame & 7));
    return true;
}

static void forget_page(struct page *page) {
    say("dmr rel %" PRIx64 "\n", page->frame << PAGE_SHIFT);
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

static struct page *page_of(uint64_t frame) {
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
static void follow(struct page *page, enum kind kind) {
    struct target to[MAX_TARGETS];
    unsigned int step = entry_qwords[kind];

    for (unsigned int i = 0; step && i < QWORDS; i += step) {
        size_t count = targets_of(kind, &page->nodes[kind], i / step, &page->shadow[i], to);
        for (size_t t = 0; t < count; t++)
            track_link(&to[t]);
    }
}

static int32_t who_of(const struct target *target) {
    /* Second-stage translations are tagged with nothing but their domain. */
    return target->kind >= K_FIRST5 && target->kind <= K_FIRST1 ? target->who : ANYONE;
}

/*
 * A table is reached in one more way. Where that differs from how it was reached before, its tag,
 * and those of the tables below, become several: then only a wider invalidation covers them.
 */
static void mix(struct page *page, const struct target *target) {
    enum kind kind = target->kind;
    struct node *node = &page->nodes[kind];
    struct target to[MAX_TARGETS];
    unsigned int step = entry_qwords[kind];
    bool changed = false;

    if (node->domain != ANY_DOMAIN && node->domain != target->domain) {
        node->domain = ANY_DOMAIN;
        changed = true;
    }
    if (node->who != ANYONE && node->who != who_of(target)) {
        node->who = ANYONE;
        changed = true;
    }
    if (node->place != ANYWHERE && node->place != target->place) {
        node->place = ANYWHERE;
        changed = true;
    }
    for (unsigned int i = 0; changed && step && i < QWORDS; i += step) {
        size_t count = targets_of(kind, node, i / step, &page->shadow[i], to);
        for (size_t t = 0; t < count; t++) {
            if (to[t].frame < frames && pages[to[t].frame])
                mix(pages[to[t].frame], &to[t]);
        }
    }
}

/* An entry points to a table: snapshot it, deepest tables first, if the unit did not see it. */
void track_link(const struct target *target) {
    struct page *page = page_of(target->frame);

    if (!page)
        return;
    struct node *node = &page->nodes[target->kind];
    bool known = node->live + node->pending > 0;
    if (node->live++ > 0 || known) {
        mix(page, target);
        if (node->live > 1)
            return;
    } else {
        node->domain = target->domain;
        node->who = who_of(target);
        node->place = target->place;
        follow(page, target->kind);
    }
    say_snapshot(target->frame, target->kind);
}

/* The caches that may hold an entry of a table, or lead to what it points to. */
static uint8_t needs_of_link(enum kind parent) {
    switch (parent) {
    case K_ROOT:
    case K_SCALABLE_ROOT:
    case K_SCALABLE_CONTEXT:
    case K_COUNT: /* the register itself */
        return NEED_CONTEXT;
    case K_CONTEXT:
        return NEED_CONTEXT | NEED_IOTLB;
    case K_PASID_DIRECTORY: /* only what is in the PASID table may be cached */
    case K_INTERRUPTS:      /* what is cached of these leads to no table */
    case K_QUEUE:
        return 0;
    case K_PASID_TABLE:
        return NEED_PASID | NEED_IOTLB;
    default:
        return NEED_IOTLB;
    }
}

static void release(struct page *page, enum kind kind);
static bool sweeping; /* pages are forgotten later, all at once */

static void drop(struct node *node, const struct target *target, uint8_t need) {
    /* Equal ones can only be there when the node has some. */
    for (size_t i = 0; node->pending && i < drop_count; i++) {
        if (drops[i].need == need && same_target(&drops[i].target, target)) {
            drops[i].count++;
            node->pending++;
            return;
        }
    }
    node->pending++;
    if (drop_count == MAX_DROPS) {
        node->held++;
        held_need |= need;
        return;
    }
    drops[drop_count++] = (struct drop){*target, 1, need};
}

/* An entry of `parent` no longer points to a table; caches may not know. */
void track_unlink(const struct target *target, enum kind parent) {
    struct page *page = target->frame < frames ? pages[target->frame] : NULL;
    struct node *node = page ? &page->nodes[target->kind] : NULL;
    uint8_t need = needs_of_link(parent);

    /* Not there when the page was outside RAM. */
    if (!node || !node->live)
        return;
    node->live--;
    if (need)
        drop(node, target, need);
    else if (node->live + node->pending == 0)
        release(page, target->kind);
}

static bool used(const struct page *page) {
    for (int k = 0; k < K_COUNT; k++) {
        if (page->nodes[k].live + page->nodes[k].pending > 0)
            return true;
    }
    return false;
}

/* The last reference is gone: so are those of its entries. */
static void release(struct page *page, enum kind kind) {
    struct target to[MAX_TARGETS];
    unsigned int step = entry_qwords[kind];

    page->nodes[kind].pending++; /* keep the page while its entries may point back to it */
    for (unsigned int i = 0; step && i < QWORDS; i += step) {
        size_t count = targets_of(kind, &page->nodes[kind], i / step, &page->shadow[i], to);
        for (size_t t = 0; t < count; t++)
            track_unlink(&to[t], kind);
    }
    page->nodes[kind].pending--;
    if (!sweeping && !used(page))
        forget_page(page);
}

static bool covers(const struct invalidation *done, const struct drop *drop) {
    const struct target *target = &drop->target;
    unsigned int level = level_of(target->kind);
    bool same_domain = target->domain != ANY_DOMAIN && target->domain == done->domain;
    bool same_one =
        target->who != ANYONE && !((target->who ^ done->who) & ~(int32_t)done->who_ignore);

    if (!(drop->need & done->what))
        return false;
    switch (done->what) {
    case NEED_CONTEXT:
        if (done->domain == ANY_DOMAIN)
            return true;
        /* An entry in scalable mode has no domain. */
        if (done->who != ANYONE)
            return same_one && (same_domain || target->domain == ANY_DOMAIN);
        return same_domain;
    case NEED_PASID:
        return done->domain == ANY_DOMAIN || (same_domain && (done->who == ANYONE || same_one));
    default:
        break;
    }
    /* An IOTLB fill may follow until the entry above it is gone: keep the order. */
    if (drop->need != NEED_IOTLB)
        return false;
    if (done->domain == ANY_DOMAIN)
        return true;
    if (!same_domain)
        return false;
    if (done->first_stage && (target->kind < K_FIRST5 || target->kind > K_FIRST1 || !same_one))
        return false;
    if (!done->pages)
        return true;
    if (!done->first_stage && target->kind < K_SECOND5)
        return false;
    return target->place != ANYWHERE && done->last >= target->place &&
           done->first <= target->place + ((1ull << (PAGE_SHIFT + 9 * level)) - 1);
}

/* Give up the references that found no room in the list. */
static void release_held(void) {
    sweeping = true;
    for (struct page *page = all_pages; page; page = page->next) {
        for (int k = 0; k < K_COUNT; k++) {
            struct node *node = &page->nodes[k];
            uint32_t held = node->held;
            node->held = 0;
            node->pending -= held;
            if (held && node->live + node->pending == 0)
                release(page, (enum kind)k);
        }
    }
    sweeping = false;
    for (struct page *page = all_pages, *next; page; page = next) {
        next = page->next;
        if (!used(page))
            forget_page(page);
    }
}

/* Give up what an executed invalidation covers. */
void track_invalidate(const struct invalidation *done) {
    size_t kept = 0;

    if (done->domain == ANY_DOMAIN && held_need & done->what &&
        (done->what != NEED_IOTLB || held_need == NEED_IOTLB)) {
        held_need &= (uint8_t)~done->what;
        if (!held_need)
            release_held();
    }
    /* What is released adds drops at the end, and the invalidation may cover those as well. */
    for (size_t i = 0; i < drop_count; i++) {
        struct drop one = drops[i];

        drops[i].need = 0; /* equal to none */
        if (covers(done, &one))
            one.need &= (uint8_t)~done->what;
        if (one.need) {
            drops[kept++] = one;
            continue;
        }
        struct page *page = pages[one.target.frame];
        struct node *node = &page->nodes[one.target.kind];
        node->pending -= one.count;
        if (node->pending + node->live == 0)
            release(page, one.target.kind);
    }
    drop_count = kept;
}

/*
 * Report a store to a watched page. The content is read back from RAM, as the value that the
 * CPU reports is not the outcome for every read-modify-write instruction.
 */
void track_store(uint64_t frame, unsigned int offset, unsigned int size) {
    struct page *page = pages[frame];
    const uint64_t *content = ram_page(frame);
    unsigned int first = offset / 8, last = (offset + size - 1) / 8;
    uint64_t after[QWORDS];
    struct target was[MAX_TARGETS], is[MAX_TARGETS];
    bool queue_only = true;

    if (!page)
        return;
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
            say("dmr st %" PRIx64 " 8 %" PRIx64 "\n", (frame << PAGE_SHIFT) + i * 8, after[i]);
        }
    }
    memcpy(page->shadow, after, sizeof(after));
}

void track_forget_all(void) {
    while (all_pages)
        forget_page(all_pages);
    drop_count = 0;
    held_need = 0;
}
