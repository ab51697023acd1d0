// The threads that share the work of a calling thread. Every calling thread has a team of its own,
// made when it first needs one.
//
// The caller never waits for a thread that has not begun: a region is closed as soon as the caller
// finds no work left, and threads that come later find it closed. So on a busy machine, where a
// thread may get a core only after milliseconds, a region takes no longer than the caller alone.
// Threads look out for the next region for a short time before they sleep.
#pragma once

#include <cstdint>

namespace mlpkern::cpu {

using TeamBody = void (*)(int64_t worker, void* context);

// Calls body(0, context) in the calling thread and body(w, context), 0 < w < workers, in those of
// its team that are free meanwhile; returns when all of them have. Each call takes work until none
// is left, so that all is done whoever comes. Within a region only body(0, context) is called.
void run_team(int64_t workers, TeamBody body, void* context);

// Whether the team of this thread is awake: it has just had a region.
bool team_is_awake();

// Whether the calling thread works in a region.
bool in_region();

}  // namespace mlpkern::cpu
