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
    [K_INTERRUPTS] = 0, /* an entry that posts leads to memory that QEMU (up to 11) does not use */
    [K_QUEUE] = 0,
};

/* A pointer to a page: the field in place, without bits above the host address width. */
uint64_t pointer(const uint64_t *words, unsigned int word, unsigned int low, unsigned int width) {
    return (get(words, word, low, width) << low) & address_mask;
}

static size_t point(struct target *to, uint64_t address, enum kind kind, int32_t domain,
                    int32_t who, uint64_t place) {
    to->frame = address >> PAGE_SHIFT;
    to->kind = kind;
    to->domain = domain;
    to->who = who;
    to->place = place;
    return 1;
}

/* The source id or PASID of an entry, when its table is in one place. */
static int32_t number_of(const struct node *node, unsigned int index) {
    return node->place == ANYWHERE ? ANYONE : (int32_t)(node->place + index);
}

/* Where a table begins that an entry of another leads to, each entry reaching 2^bits further. */
static uint64_t place_below(const struct node *node, unsigned int index, unsigned int bits) {
    return node->place == ANYWHERE ? ANYWHERE : node->place + ((uint64_t)index << bits);
}

/* AW 1, 2 and 3 are 3, 4 and 5 levels. */
static enum kind second_stage_top(uint64_t width) {
    return (enum kind)(K_SECOND1 - (width + 1));
}

static size_t pasid_targets(const struct node *node, unsigned int index, const uint64_t *entry,
                            struct target *to) {
    uint64_t width = get(entry, PASID_ENTRY_AW);
    uint64_t type = get(entry, PASID_ENTRY_PGTT); /* 1 first stage, 2 second stage, 3 nested */
    uint64_t mode = get(entry, PASID_ENTRY_FSPM); /* 0 four levels, 1 five */
    int32_t domain = (int32_t)get(entry, PASID_ENTRY_DID);
    int32_t pasid = number_of(node, index);
    size_t count = 0;

    if (!get(entry, PASID_ENTRY_P))
        return 0;
    /*
     * In a nested entry the first-stage pointer is itself translated. It is followed as if the
     * second stage were one to one: QEMU (up to 11) refuses nested entries.
     */
    if ((type == 1 || type == 3) && mode < 2)
        count += point(to, pointer(entry, PASID_ENTRY_FSPTPTR),
                       mode ? K_FIRST5 : (enum kind)(K_FIRST5 + 1), domain, pasid, 0);
    if ((type == 2 || type == 3) && width >= 1 && width <= 3)
        count += point(to + count, pointer(entry, PASID_ENTRY_SSPTPTR), second_stage_top(width),
                       domain, pasid, 0);
    return count;
}

/*
 * List what one entry of a table points to. Only what decides where a pointer leads is looked
 * at: an entry that the unit would refuse for a reserved bit is followed all the same.
 */
size_t targets_of(enum kind kind, const struct node *node, unsigned int index,
                  const uint64_t *entry, struct target *to) {
    uint64_t address, width, place;
    unsigned int bits;

    switch (kind) {
    case K_ROOT: /* an entry is a bus, 256 source ids */
        return get(entry, ROOT_ENTRY_P) ? point(to, pointer(entry, ROOT_ENTRY_CTP), K_CONTEXT,
                                                ANY_DOMAIN, ANYONE, place_below(node, index, 8))
                                        : 0;
    case K_SCALABLE_ROOT: /* each half of an entry is half a bus */
        return get(entry, SCALABLE_ROOT_ENTRY_LP)
                   ? point(to, pointer(entry, SCALABLE_ROOT_ENTRY_LCTP), K_SCALABLE_CONTEXT,
                           ANY_DOMAIN, ANYONE, place_below(node, index, 7))
                   : 0;
    case K_CONTEXT:
        width = get(entry, CONTEXT_ENTRY_AW);
        /* Translation type 2 is pass-through: the pointer means nothing. */
        if (!get(entry, CONTEXT_ENTRY_P) || get(entry, CONTEXT_ENTRY_TT) > 1 || width < 1 ||
            width > 3)
            return 0;
        return point(to, pointer(entry, CONTEXT_ENTRY_SSPTPTR), second_stage_top(width),
                     (int32_t)get(entry, CONTEXT_ENTRY_DID), number_of(node, index), 0);
    case K_SCALABLE_CONTEXT: {
        if (!get(entry, SCALABLE_CONTEXT_ENTRY_P))
            return 0;
        /* 2^(PDTS+7) entries of 8 bytes, at least one page; each leads to 64 PASIDs. */
        width = get(entry, SCALABLE_CONTEXT_ENTRY_PDTS);
        address = pointer(entry, SCALABLE_CONTEXT_ENTRY_PASIDDIRPTR);
        size_t count = width < 2 ? 1 : 1u << (width - 2);
        for (size_t i = 0; i < count; i++)
            point(to + i, (address + i * PAGE_BYTES) & address_mask, K_PASID_DIRECTORY, ANY_DOMAIN,
                  number_of(node, index), i * QWORDS * 64);
        return count;
    }
    case K_PASID_DIRECTORY:
        return get(entry, PASID_DIRECTORY_ENTRY_P)
                   ? point(to, pointer(entry, PASID_DIRECTORY_ENTRY_SMPTBLPTR), K_PASID_TABLE,
                           ANY_DOMAIN, ANYONE, place_below(node, index, 6))
                   : 0;
    case K_PASID_TABLE:
        return pasid_targets(node, index, entry, to);
    case K_FIRST1:
    case K_SECOND1:
    case K_INTERRUPTS:
    case K_QUEUE:
    case K_COUNT:
        return 0;
    default:
        break;
    }
    bits = PAGE_SHIFT + 9 * (level_of(kind) - 1);
    place = place_below(node, index, bits);
    /* PS makes a leaf at level 2 and 3 and is reserved above: no table either way. */
    if (kind < K_FIRST1) {
        if (!get(entry, FIRST_STAGE_ENTRY_P) || get(entry, FIRST_STAGE_ENTRY_PS))
            return 0;
        address = pointer(entry, FIRST_STAGE_ENTRY_ADDR);
    } else {
        if (!(get(entry, SECOND_STAGE_ENTRY_R) | get(entry, SECOND_STAGE_ENTRY_W) |
              get(entry, SECOND_STAGE_ENTRY_X)) ||
            get(entry, SECOND_STAGE_ENTRY_PS))
            return 0;
        address = pointer(entry, SECOND_STAGE_ENTRY_ADDR);
    }
    return point(to, address, (enum kind)(kind + 1), node->domain, node->who, place);
}

bool same_target(const struct target *a, const struct target *b) {
    return a->frame == b->frame && a->kind == b->kind && a->domain == b->domain &&
           a->who == b->who && a->place == b->place;
}

/* The level of a paging table, 1 to 5; 0 for everything else. */
unsigned int level_of(enum kind kind) {
    if (kind >= K_FIRST5 && kind <= K_FIRST1)
        return K_FIRST1 - kind + 1;
    if (kind >= K_SECOND5 && kind <= K_SECOND1)
        return K_SECOND1 - kind + 1;
    return 0;
}
