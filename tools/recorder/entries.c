/* Say which tables an entry points to (VT-d specification, chapter 9). */
#include "recorder.h"

uint64_t address_mask = ((1ull << 48) - 1) & ~0xfffull;

const uint8_t entry_qwords[K_COUNT] = {
    [K_ROOT] = 2,
    [K_SCALABLE_ROOT] = 1,
    [K_CONTEXT] = 2,
    [K_SCALABLE_CONTEXT] = 4,
    [K_PASID_DIRECTORY] = 1,
    [K_PASID_TABLE] = 8,
    [K_FIRST5] = 1,
    [K_FIRST5 + 1] = 1,
    [K_FIRST5 + 2] = 1,
    [K_FIRST5 + 3] = 1,
    [K_FIRST1] = 0,
    [K_SECOND5] = 1,
    [K_SECOND5 + 1] = 1,
    [K_SECOND5 + 2] = 1,
    [K_SECOND5 + 3] = 1,
    [K_SECOND1] = 0,
    [K_QUEUE] = 0,
};

static size_t point(struct target *to, uint64_t pointer, enum kind kind, int32_t domain,
                    uint64_t iova) {
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
size_t targets_of(enum kind kind, const struct node *node, unsigned int index,
                  const uint64_t *entry, struct target *to) {
    uint64_t q0 = entry[0];
    uint64_t iova;
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
            count +=
                point(to + count, q0, (enum kind)(K_SECOND1 - (width + 1)), entry[1] & 0xffff, 0);
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
    iova = node->iova == ANYWHERE
               ? ANYWHERE
               : node->iova + ((uint64_t)index << (PAGE_SHIFT + 9 * (level - 1)));
    return point(to, q0, (enum kind)(kind + 1), node->domain, iova);
}

bool same_target(const struct target *a, const struct target *b) {
    return a->frame == b->frame && a->kind == b->kind && a->domain == b->domain;
}

/* How many address bits a table of this kind translates; all for what is above the tables. */
unsigned int bits_of_kind(enum kind kind) {
    if (kind >= K_FIRST5 && kind <= K_FIRST1)
        return PAGE_SHIFT + 9 * (unsigned int)(K_FIRST1 - kind + 1);
    if (kind >= K_SECOND5 && kind <= K_SECOND1)
        return PAGE_SHIFT + 9 * (unsigned int)(K_SECOND1 - kind + 1);
    return 63;
}
