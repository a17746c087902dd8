/*
 * What QEMU is to the recorder, reduced to one processor that only stores and loads. The tests
 * write guest RAM themselves (it is a file) and then tell the plugin of the store.
 */
#include "qemu_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_hwaddr {
    uint64_t physical;
};

/* Five pages of devices: four of a virtio-iommu, one of another device. */
#define VIRTIO_BAR 0xfe000000ull

static bool is_virtio(uint64_t physical) {
    return physical - VIRTIO_BAR < 5ull << 12;
}

RECORDER_EXPORT void host_store(uint64_t virtual_address, uint64_t first, uint64_t second,
                                unsigned int shift, uint64_t low, uint64_t high);
RECORDER_EXPORT void host_load(uint64_t physical, unsigned int shift, uint64_t value);
RECORDER_EXPORT void host_execute(uint64_t address);
RECORDER_EXPORT const char *host_lines(void);

static qemu_plugin_vcpu_tb_trans_cb_t translate;
static qemu_plugin_vcpu_udata_cb_t execute;
static qemu_plugin_vcpu_mem_cb_t store, load;

static struct qemu_plugin_hwaddr where;
static uint64_t pages[2]; /* physical pages behind the two virtual pages of a store */
static uint64_t start;
static qemu_plugin_mem_value value;
static uint64_t block;

static char *lines;
static size_t length, capacity;

/* Everything printed since the last call. */
const char *host_lines(void) {
    length = 0;
    return lines ? lines : "";
}

void qemu_plugin_outs(const char *string) {
    size_t more = strlen(string);
    if (length + more + 1 > capacity) {
        capacity = (length + more + 1) * 2;
        lines = realloc(lines, capacity);
        if (!lines)
            abort();
    }
    memcpy(lines + length, string, more + 1);
    length += more;
}

static void clear(void) {
    length = 0;
    qemu_plugin_outs("");
}

/* Report a store at a virtual address whose page, and the one after it, lie at first and second. */
void host_store(uint64_t virtual_address, uint64_t first, uint64_t second, unsigned int shift,
                uint64_t low, uint64_t high) {
    clear();
    pages[0] = first;
    pages[1] = second;
    start = virtual_address;
    value.type = (int)shift;
    value.data.u128.low = low;
    value.data.u128.high = high;
    store(0, shift, virtual_address, NULL);
}

void host_load(uint64_t physical, unsigned int shift, uint64_t loaded) {
    clear();
    pages[0] = physical & ~0xfffull;
    start = physical;
    value.type = (int)shift;
    value.data.u64 = loaded;
    if (load)
        load(0, shift, physical, NULL);
}

/* Translate and run a block of one instruction at an address. */
void host_execute(uint64_t address) {
    clear();
    execute = NULL;
    block = address;
    translate(0, NULL);
    if (execute)
        execute(0, NULL);
}

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t cb) {
    (void)id;
    translate = cb;
}

void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, qemu_plugin_vcpu_udata_cb_t cb,
                                          enum qemu_plugin_cb_flags flags, void *userdata) {
    (void)tb;
    (void)flags;
    (void)userdata;
    execute = cb;
}

void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, qemu_plugin_vcpu_mem_cb_t cb,
                                      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw,
                                      void *userdata) {
    (void)insn;
    (void)flags;
    (void)userdata;
    if (rw == QEMU_PLUGIN_MEM_W)
        store = cb;
    else
        load = cb;
}

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb) {
    (void)tb;
    return 1;
}

uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb) {
    (void)tb;
    return block;
}

struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t idx) {
    (void)tb;
    (void)idx;
    return NULL;
}

unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info) {
    return info;
}

qemu_plugin_mem_value qemu_plugin_mem_get_value(qemu_plugin_meminfo_t info) {
    (void)info;
    return value;
}

struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(qemu_plugin_meminfo_t info, uint64_t vaddr) {
    (void)info;
    where.physical = pages[(vaddr >> 12) != (start >> 12)] | (vaddr & 0xfff);
    return &where;
}

bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *haddr) {
    return haddr->physical >> 12 == 0xfed90 || is_virtio(haddr->physical);
}

const char *qemu_plugin_hwaddr_device_name(const struct qemu_plugin_hwaddr *haddr) {
    static const char *const parts[] = {"common", "isr", "device", "notify"};
    static char name[48];

    if (!is_virtio(haddr->physical))
        return "RAM";
    if (haddr->physical >> 12 == (VIRTIO_BAR >> 12) + 4)
        return "virtio-pci-notify-virtio-blk";
    snprintf(name, sizeof(name), "virtio-pci-%s-virtio-iommu",
             parts[(haddr->physical - VIRTIO_BAR) >> 12]);
    return name;
}

uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *haddr) {
    return haddr->physical;
}
