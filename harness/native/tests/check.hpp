// Checks that print what failed and where; the process fails when any did.
#pragma once

#include <cstdio>

namespace dmarewind::tests {

inline int failures = 0;
inline int checks = 0;

inline void expect(bool good, const char *what, const char *file, int line) {
    ++checks;
    if (!good) {
        ++failures;
        std::printf("%s:%d: %s\n", file, line, what);
    }
}

// A test is a function that registers itself.
struct Test {
    const char *name;
    void (*run)();
    Test *next;

    static Test *&first() {
        static Test *head = nullptr;
        return head;
    }

    Test(const char *test_name, void (*function)())
        : name(test_name), run(function), next(first()) {
        first() = this;
    }
};

} // namespace dmarewind::tests

// The only macro of the tests: an expression's text and place cannot be had otherwise.
#define EXPECT(expression)                                                                         \
    dmarewind::tests::expect(static_cast<bool>(expression), #expression, __FILE__, __LINE__)
