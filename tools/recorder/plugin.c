/*
 * dmarewind-recorder: a QEMU TCG plugin that writes what the guest does to the tables and
 * registers of an Intel VT-d unit, or to a virtio-iommu, into QEMU's own log.
 *
 *   -plugin dmarewind-recorder.so,ram=PATH,map=GPA:LENGTH:OFFSET;... -d plugin
 *
 * ram=   file behind the guest's RAM (memory-backend-file or -memfd with share=on)
 * map=   which guest-physical ranges the file holds, numbers as strtoull base 0 reads them
 * base=  register page of the unit (0xfed90000)
 * haw=   host address width, bits above it are not part of a table pointer (48)
 * reads= on: report register reads too, costs a callback for every load (off)
 * pages= how many table pages to watch at most (65536)
 * virtio= on: the machine's unit is a virtio-iommu, and nothing is at base= (off)
 *
 * The lines are described in docs/design.md, section 5. Because the log also receives the
 * `vtd_*` or `virtio_iommu_*` trace lines, one file holds one order: a table page's content is
 * printed before the store that links it, and the store itself before the guest can tell the unit
 * about it.
 *
 * Every store of every vCPU comes through on_store(). Nearly all end at one bit test: `watched`
 * has a bit per guest page frame. What is behind the bit is kept by tables.c.
 */
#include "qemu_api.h"
#include "recorder.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t base_frame = 0xfed90000ull >> PAGE_SHIFT;
static bool reads, virtio;
static char *ram_path;

/* The first stores are compared with RAM, to notice a wrong `map=` before it does harm. */
#define GUARD_STORES 4096
static unsigned int guard_left = GUARD_STORES, guard_bad;

static void guard(uint64_t physical, unsigned int size, qemu_plugin_meminfo_t info) {
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
static void piece(uint64_t physical, unsigned int size, const uint8_t *bytes) {
    uint64_t frame = physical >> PAGE_SHIFT;

    pthread_mutex_lock(&lock);
    if (frame == base_frame) {
        if (size <= 8)
            unit_store((unsigned int)physical & (PAGE_BYTES - 1), size, bytes);
    } else if (!lost && frame < frames) {
        track_store(frame, (unsigned int)physical & (PAGE_BYTES - 1), size);
    }
    pthread_mutex_unlock(&lock);
}

/* A store to a device other than the unit of base=. */
static void io_store(const struct qemu_plugin_hwaddr *where, qemu_plugin_meminfo_t info) {
    qemu_plugin_mem_value value = qemu_plugin_mem_get_value(info);
    const char *region = qemu_plugin_hwaddr_device_name(where);

    pthread_mutex_lock(&lock);
    virtio_store(region, (unsigned int)qemu_plugin_hwaddr_phys_addr(where) & (PAGE_BYTES - 1),
                 1u << qemu_plugin_mem_size_shift(info), (const uint8_t *)&value.data);
    pthread_mutex_unlock(&lock);
}

static bool interesting(uint64_t physical) {
    uint64_t frame = physical >> PAGE_SHIFT;

    if (__builtin_expect(frame < frames, 1))
        return __builtin_expect(watched[frame >> 3] >> (frame & 7) & 1, 0);
    return frame == base_frame;
}

static void on_store(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data) {
    const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    unsigned int offset = (unsigned int)vaddr & (PAGE_BYTES - 1);
    qemu_plugin_mem_value value;
    unsigned int size, rest;

    (void)vcpu;
    (void)data;
    if (!where)
        return;
    if (__builtin_expect(virtio, 0) && qemu_plugin_hwaddr_is_io(where)) {
        io_store(where, info);
        return;
    }
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

static void on_load(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data) {
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
    say("dmr rd %x %x %" PRIx64 "\n", (unsigned int)physical & (PAGE_BYTES - 1), size, bits);
    pthread_mutex_unlock(&lock);
}

/* ---- life of the machine ---- */

/* The processor starts at the reset vector: the unit was reset and reaches nothing. */
static void on_reset(unsigned int vcpu, void *data) {
    (void)vcpu;
    (void)data;
    pthread_mutex_lock(&lock);
    unit_reset();
    virtio_reset();
    if (!lost && !frames && !(ram_map(ram_path) && track_start(base_frame))) {
        frames = 0;
        give_up("cannot map the guest's RAM; check ram= and map=");
    }
    pthread_mutex_unlock(&lock);
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    size_t count = qemu_plugin_tb_n_insns(tb);

    (void)id;
    if (qemu_plugin_tb_vaddr(tb) == 0xfffffff0)
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_reset, QEMU_PLUGIN_CB_NO_REGS, NULL);
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_register_vcpu_mem_cb(insn, on_store, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W,
                                         NULL);
        if (reads)
            qemu_plugin_register_vcpu_mem_cb(insn, on_load, QEMU_PLUGIN_CB_NO_REGS,
                                             QEMU_PLUGIN_MEM_R, NULL);
    }
}

static bool parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *number) {
    char *end;

    errno = 0;
    *number = strtoull(text, &end, 0);
    return !errno && *text && !*end && *number >= least && *number <= most;
}

RECORDER_EXPORT int qemu_plugin_version = 4;

RECORDER_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                        char **argv) {
    if (!info->system_emulation || strcmp(info->target_name, "x86_64") != 0) {
        fprintf(stderr, "dmarewind-recorder: works with qemu-system-x86_64 only\n");
        return -1;
    }
    bool layout = false;

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
            fine = layout = ram_layout(value);
        } else if (length == 5 && !strncmp(argv[i], "pages", 5)) {
            fine = parse_number(value, 1, 1u << 24, &number);
            max_pages = (size_t)number;
        } else if (length == 5 && !strncmp(argv[i], "reads", 5)) {
            reads = !strcmp(value, "on");
            fine = reads || !strcmp(value, "off");
        } else if (length == 6 && !strncmp(argv[i], "virtio", 6)) {
            virtio = !strcmp(value, "on");
            fine = virtio || !strcmp(value, "off");
        }
        if (!fine) {
            fprintf(stderr, "dmarewind-recorder: cannot understand the argument %s\n", argv[i]);
            return -1;
        }
    }
    if (virtio)
        base_frame = UINT64_MAX;
    if (!ram_path || !layout) {
        fprintf(stderr, "dmarewind-recorder: needs ram=PATH and map=GPA:LENGTH:OFFSET;...\n");
        return -1;
    }
    qemu_plugin_outs("dmr begin 1\n");
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    return 0;
}
