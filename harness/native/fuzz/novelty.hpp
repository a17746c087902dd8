// Shows libFuzzer the counters of a run where they say something that no run before it said.
//
// libFuzzer looks at each counter that is not zero, for each run: some hundreds, which takes longer
// than the run. Nearly all runs show nothing new, which comparing vectors tells at once. So
// libFuzzer is given an array of its own, which stays empty behind such runs. One run in sampled is
// shown in any case: how often something is reached, and shorter inputs that reach the same,
// libFuzzer learns from those.
#pragma once

namespace dmarewind::novelty {

inline constexpr unsigned sampled = 64;

// Behind each run: show its counters or not, and clear them.
void settle();

// Show all from now on: for who compares inputs by what each of them reaches, as a merge does.
void show_all();

// Whether somebody settles, asked when counters register themselves; else libFuzzer is given the
// counters themselves. Who links this defines it.
bool is_wanted();

} // namespace dmarewind::novelty
