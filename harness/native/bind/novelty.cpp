#include "novelty.hpp"

#include <cstdlib>

// Asked while the module is loaded, when Python has no word in it yet.
bool dmarewind::novelty::is_wanted() {
    return std::getenv("DMAREWIND_NOVELTY") != nullptr;
}
