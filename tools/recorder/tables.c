/*
 * Keep the graph of what the unit can reach.
 *
 * A node is a page in one role (a page may have several); each entry that points to a table is a
 * reference to a node. Roles only ever point to a lower role or level, so references cannot form
 * a circle and counting them is exact. A reference whose entry was cleared is not given up at
 * once: the unit may still hold the entry in a cache. It becomes a `drop` and is given up when
 * invalidations that cover the entry have been executed. Until then the page, and all it points
 * to, stays watched, which is exactly how far the unit can still see.
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

/* A reference to give up once all that it needs has been invalidated. */
struct drop {
    struct target target;
    uint8_t need;
};

static struct drop *drops;
static size_t drop_count, drop_capacity;

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

/*
 * Make a table's domain or place, and those of the tables below, several: then an invalidation
 * of any domain, or of any addresses, may cover them.
 */
static void mix(struct page *page, enum kind kind, bool domains, bool places) {
    struct node *node = &page->nodes[kind];
    struct target to[MAX_TARGETS];
    unsigned int step = entry_qwords[kind];

    domains = domains && node->domain != ANY_DOMAIN;
    places = places && node->iova != ANYWHERE;
    if (!domains && !places)
        return;
    if (domains)
        node->domain = ANY_DOMAIN;
    if (places)
        node->iova = ANYWHERE;
    for (unsigned int i = 0; step && i < QWORDS; i += step) {
        size_t count = targets_of(kind, node, i / step, &page->shadow[i], to);
        for (size_t t = 0; t < count; t++) {
            if (to[t].frame < frames && pages[to[t].frame])
                mix(pages[to[t].frame], to[t].kind, domains, places);
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
        mix(page, target->kind, node->domain != target->domain, node->iova != target->iova);
        if (node->live > 1)
            return;
    } else {
        node->domain = target->domain;
        node->iova = target->iova;
        follow(page, target->kind);
    }
    say_snapshot(target->frame, target->kind);
}

static uint8_t needs_of_link(enum kind parent) {
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
void track_unlink(const struct target *target, enum kind parent) {
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
static void track_release(struct page *page, enum kind kind) {
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

/* The unit keeps no cache of what this pointed to. */
void track_unlink_now(const struct target *target) {
    struct page *page = target->frame < frames ? pages[target->frame] : NULL;
    struct node *node = page ? &page->nodes[target->kind] : NULL;

    if (node && node->live && --node->live + node->pending == 0)
        track_release(page, target->kind);
}

/* Give up what an executed invalidation covers. */
void track_invalidate(const struct invalidation *done) {
    size_t kept = 0, count = drop_count;

    for (size_t i = 0; i < count; i++) {
        struct drop drop = drops[i];
        bool everywhere = drop.target.iova == ANYWHERE;
        uint64_t first = everywhere ? 0 : drop.target.iova;
        uint64_t last =
            everywhere ? UINT64_MAX : first + ((1ull << bits_of_kind(drop.target.kind)) - 1);
        bool covers = done->domain == ANY_DOMAIN || drop.target.domain == ANY_DOMAIN ||
                      done->domain == drop.target.domain;

        /* An IOTLB fill may follow until the entry above it is gone: keep the order. */
        if (done->what == NEED_IOTLB)
            covers =
                covers && drop.need == NEED_IOTLB && done->first <= last && done->last >= first;
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
}
