/* What the parts of the recorder share. All of it is used with the lock of plugin.c held. */
#ifndef DMAREWIND_RECORDER_H
#define DMAREWIND_RECORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

#define PAGE_SHIFT 12
#define PAGE_BYTES 4096u
#define QWORDS 512u

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
    K_INTERRUPTS,
    K_QUEUE,
    K_COUNT,
};

/* Quadwords of one entry; 0 where entries are not looked at. */
extern const uint8_t entry_qwords[K_COUNT];

#define ANY_DOMAIN (-1)
#define ANYONE (-1)
#define ANYWHERE 1 /* no table begins there, and no number that `place` may be is odd */

/*
 * What an entry points to, and how the unit tags what it caches of it.
 *
 * who: the source id of a context entry, or the PASID of what is in or below a PASID entry.
 * place: the first address translated through a paging table, the first PASID reached through a
 * PASID directory or table, the first source id in a context table.
 */
struct target {
    uint64_t frame;
    uint64_t place;
    int32_t domain;
    int32_t who;
    enum kind kind;
};
/* A PASID directory spans up to 2^14 entries of 8 bytes. */
#define MAX_TARGETS 32

/* domain, who and place are ANY_DOMAIN, ANYONE and ANYWHERE once there have been several. */
struct node {
    uint32_t live;    /* entries that point here now */
    uint32_t pending; /* entries that did, and may still be cached */
    uint32_t held;    /* those of the pending that are in no list */
    int32_t domain;
    int32_t who;
    uint64_t place;
};

struct page {
    uint64_t frame;
    struct page *next, *previous;
    struct node nodes[K_COUNT];
    uint64_t shadow[QWORDS]; /* content as last reported */
};

/* What has to be invalidated before a cleared entry is really gone. */
enum { NEED_CONTEXT = 1, NEED_PASID = 2, NEED_IOTLB = 4 };

/* An executed invalidation; it is global when it is of any domain. */
struct invalidation {
    uint8_t what;        /* one of NEED_* */
    bool pages;          /* of NEED_IOTLB: only first to last, of second-stage tables */
    bool first_stage;    /* of NEED_IOTLB: only first-stage tables, of one PASID */
    int32_t domain;      /* ANY_DOMAIN: all */
    int32_t who;         /* a source id or a PASID; ANYONE: all */
    uint16_t who_ignore; /* bits of the source id that do not matter */
    uint64_t first, last;
};

/* Fields, from layout.h: the word, its lowest bit there, the width in bits. */
static inline uint64_t get(const uint64_t *words, unsigned int word, unsigned int low,
                           unsigned int width) {
    return (words[word] >> low) & (~0ull >> (64 - width));
}

/* log.c: every line is one call, since other threads write to the same log. */
extern bool lost;
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void give_up(const char *reason);
void say_snapshot(uint64_t frame, enum kind kind);

/* ram.c */
extern uint64_t frames; /* page frames below the end of RAM; 0 until it is mapped */
bool ram_layout(const char *text);
bool ram_map(const char *path);
const uint64_t *ram_page(uint64_t frame);
uint64_t load(const uint64_t *qword);

/* entries.c */
extern uint64_t address_mask;
size_t targets_of(enum kind kind, const struct node *node, unsigned int index,
                  const uint64_t *entry, struct target *to);
uint64_t pointer(const uint64_t *words, unsigned int word, unsigned int low, unsigned int width);
bool same_target(const struct target *a, const struct target *b);
unsigned int level_of(enum kind kind);

/* tables.c */
extern uint8_t *watched; /* a bit per page frame */
extern size_t max_pages;
bool track_start(uint64_t register_frame);
void track_link(const struct target *target);
void track_unlink(const struct target *target, enum kind parent);
void track_store(uint64_t frame, unsigned int offset, unsigned int size);
void track_invalidate(const struct invalidation *done);
void track_forget_all(void);

/* unit.c */
void unit_reset(void);
void unit_store(unsigned int offset, unsigned int size, const uint8_t *bytes);

/* virtio.c */
void virtio_reset(void);
void virtio_store(const char *region, unsigned int offset, unsigned int size, const uint8_t *bytes);

#endif
