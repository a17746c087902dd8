#include "check.hpp"

using namespace dmarewind::tests;

int main() {
    int tests = 0;
    for (Test *test = Test::first(); test != nullptr; test = test->next) {
        const int before = failures;
        test->run();
        std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", test->name);
        ++tests;
    }
    std::printf("%d tests, %d checks, %d failures\n", tests, checks, failures);
    return failures == 0 && tests != 0 ? 0 : 1;
}
