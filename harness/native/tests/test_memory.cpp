#include "check.hpp"
#include "memory.hpp"

#include <array>

using namespace dmarewind;
using dmarewind::tests::Test;

namespace {

constexpr u64 far_address = u64{1} << 50;

void behaves_the_same_near_and_far() {
    for (const u64 base : {u64{0x7000}, far_address}) {
        Memory memory;
        EXPECT(memory.load_quadword(base) == 0);
        EXPECT(memory.writer(base) == Memory::no_writer);
        memory.store(base + 8, 8, 0x1122'3344'5566'7788, 5);
        memory.store(base + 8, 1, 0xff, 6);
        EXPECT(memory.load_quadword(base + 8) == 0x1122'3344'5566'77ff);
        EXPECT(memory.writer(base + 8) == 6);
        EXPECT(memory.writer(base) == Memory::no_writer);
        EXPECT(memory.pages() == 1);

        const std::array<std::byte, page_size> content{std::byte{1}};
        memory.write(base, content, 9);
        EXPECT(memory.load_quadword(base) == 1);
        EXPECT(memory.load_quadword(base + 8) == 0);
        EXPECT(memory.writer(base + 4088) == 9);
        memory.clear();
        EXPECT(memory.load_quadword(base) == 0);
        EXPECT(memory.pages() == 0);
        EXPECT(memory.writer(base) == Memory::no_writer);
    }
}
const Test behaves("memory: the same near and far", behaves_the_same_near_and_far);

void splits_a_store_that_crosses_a_page() {
    Memory memory;
    memory.store(0x1ffe, 4, 0xaabb'ccdd, 3);
    EXPECT(memory.load_quadword(0x1ff8) == 0xccdd'0000'0000'0000);
    EXPECT(memory.load_quadword(0x2000) == 0xaabb);
    EXPECT(memory.writer(0x1ff8) == 3 && memory.writer(0x2000) == 3);
    EXPECT(memory.pages() == 2);
}
const Test splits("memory: a store across pages", splits_a_store_that_crosses_a_page);

void stops_at_its_budget() {
    for (const u64 window : {u64{0}, Memory::default_window}) {
        Memory memory(2, window);
        memory.store(0x1000, 8, 1, 1);
        memory.store(0x2000, 8, 1, 1);
        bool refused = false;
        try {
            memory.store(0x3000, 8, 1, 1);
        } catch (const MemoryError &) {
            refused = true;
        }
        EXPECT(refused);
        EXPECT(memory.pages() == 2);
    }
}
const Test budget("memory: page budget", stops_at_its_budget);

void reads_inside_ram_only() {
    Memory memory;
    EXPECT(memory.readable(0, 8));
    memory.set_ram({{0x1000, 0x2fff}});
    EXPECT(!memory.readable(0xff8, 8));
    EXPECT(memory.readable(0x1000, 8));
    EXPECT(memory.readable(0x2ff8, 8));
    EXPECT(!memory.readable(0x3000, 8));
    EXPECT(!memory.readable(~u64{7}, 8));
}
const Test ram("memory: RAM ranges", reads_inside_ram_only);

void clears_few_pages_and_many() {
    for (const u64 pages : {u64{3}, u64{5000}})
        for (const u64 window : {u64{0}, Memory::default_window}) {
            Memory memory(pages, window);
            for (int round = 0; round < 2; ++round) {
                for (u64 page = 0; page < pages; ++page)
                    memory.store(page * page_size + 8, 8, page + 1, page);
                EXPECT(memory.pages() == pages);
                memory.clear();
                EXPECT(memory.pages() == 0);
                u64 left = 0;
                for (u64 page = 0; page < pages; ++page)
                    left += memory.load_quadword(page * page_size + 8) != 0 ||
                            memory.writer(page * page_size + 8) != memory.writer(u64{1} << 40);
                EXPECT(left == 0);
            }
        }
}
const Test clears("memory: few and many pages are cleared", clears_few_pages_and_many);

void goes_back_to_a_checkpoint() {
    for (const u64 window : {u64{0}, Memory::default_window}) {
        Memory memory(100, window);
        memory.store(0x1000, 8, 1, 1);
        memory.store(far_address, 8, 2, 2);
        memory.checkpoint();
        for (int round = 0; round < 2; ++round) {
            memory.store(0x1004, 8, ~u64{0}, 5);
            memory.store(0x1000, 1, 7, 6);
            memory.store(far_address, 8, 9, 7);
            // More pages than are looked at when a quadword is noted.
            for (u64 page = 0x10'0000; page != 0x12'0000; page += page_size) {
                memory.store(page, 8, 3, 8);
                memory.store(0x10'0008, 8, 4, 9);
            }
            memory.rollback();
            EXPECT(memory.load_quadword(0x1000) == 1 && memory.writer(0x1000) == 1);
            EXPECT(memory.load_quadword(0x1008) == 0);
            EXPECT(memory.writer(0x1008) == Memory::no_writer);
            EXPECT(memory.load_quadword(far_address) == 2 && memory.writer(far_address) == 2);
            EXPECT(memory.load_quadword(0x10'0000) == 0);
            EXPECT(memory.writer(0x10'0008) == Memory::no_writer);
            EXPECT(memory.pages() == 2);
        }
    }
}
const Test back("memory: back to a checkpoint", goes_back_to_a_checkpoint);

} // namespace
