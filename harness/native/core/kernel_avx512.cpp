#include "kernel_body.hpp"

namespace dmarewind::avx512 {

Kernels kernels() {
    return {cold, warm};
}

} // namespace dmarewind::avx512
