#include "check.hpp"
#include "flat_map.hpp"

#include <random>
#include <unordered_map>

using namespace dmarewind;
using dmarewind::tests::Test;

namespace {

void behaves_like_a_map() {
    std::mt19937_64 random(1);
    FlatMap<int> map;
    std::unordered_map<std::uint64_t, int> truth;
    for (int turn = 0; turn < 20000; ++turn) {
        // Few keys, so that they collide, come back and leave gaps.
        const std::uint64_t key = (random() % 300) << 21;
        switch (random() % 4) {
        case 0:
        case 1:
            map[key] = turn;
            truth[key] = turn;
            break;
        case 2:
            EXPECT(map.erase(key) == (truth.erase(key) == 1));
            break;
        default:
            if (turn % 4001 == 0) {
                map.clear();
                truth.clear();
            }
            const int *found = map.find(key);
            const auto right = truth.find(key);
            EXPECT((found == nullptr) == (right == truth.end()));
            EXPECT(found == nullptr || *found == right->second);
        }
        if (map.size() != truth.size()) {
            EXPECT(map.size() == truth.size());
            return;
        }
    }
    std::size_t seen = 0;
    map.for_each([&](std::uint64_t key, int &value) {
        ++seen;
        EXPECT(truth.at(key) == value);
    });
    EXPECT(seen == truth.size());
}
const Test like_a_map("flat map: like std::unordered_map", behaves_like_a_map);

void pools_reuse_what_was_released() {
    Pool<int> pool;
    const std::uint32_t first = pool.take();
    for (int i = 0; i < 1000; ++i)
        pool[pool.take()] = i;
    int *place = &pool[first];
    pool.release(first);
    EXPECT(pool.take() == first);
    EXPECT(&pool[first] == place);
}
const Test pools("pool: reuse, and places that stay", pools_reuse_what_was_released);

} // namespace
