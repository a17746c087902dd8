// Shows libFuzzer the counters of a run where they say something that no run before it said.
//
// libFuzzer looks at all counters that it knows, and longer at each that is not zero, for each run:
// that takes longer than the run. Nearly all runs show nothing new, which comparing vectors tells
// at once. So libFuzzer is given an array of its own, which stays empty behind such runs, and has
// room for the counters that are reached, in the order in which they first are. One run in sampled
// is shown in any case: how often something is reached, and shorter inputs that reach the same,
// libFuzzer learns from those.
#pragma once

namespace dmarewind::novelty {

inline constexpr unsigned sampled = 64;

// Before a run, where the fuzzer itself is linked with what counts, such as the functions of
// strings: forget what it has left.
void begin();

// Behind each run: show its counters or not, and clear them.
void settle();

// Whether somebody settles, asked when counters register themselves; else libFuzzer is given the
// counters themselves: for a merge, which compares inputs by what each of them reaches. Who links
// this defines it.
bool is_wanted();

} // namespace dmarewind::novelty
