#include "cpu/threads/team.h"

#include <pthread.h>
#include <signal.h>

#include <memory>
#include <thread>

#include "cpu/threads/cores.h"
#include "cpu/threads/flush_denormals.h"
#include "cpu/threads/stragglers.h"
#include "cpu/threads/wait.h"

namespace mlpkern::cpu {
namespace {

// How long a thread looks out for a region before it sleeps: longer than what train_steps does
// between two of them, far shorter than what another process would miss.
constexpr double kLookOut = 50e-6;
// How long the caller looks out for the last threads of a region before it leaves its core to them.
constexpr double kPatience = 20e-6;
constexpr int kRelaxes = 32;  // between two looks at the clock

// The state of a region, in one word so that entering and closing it exclude each other.
constexpr uint32_t kOpen = 1u << 31, kCallerSleeps = 1u << 30, kInside = (1u << 16) - 1;
constexpr uint32_t kOneRegion = 1u << 16, kRegions = kCallerSleeps - kOneRegion;  // their number

template <class Condition>
bool comes_true(double seconds, const Condition& condition) {
  for (int i = 0; i < kRelaxes; ++i) {
    if (condition()) return true;
    relax();
  }
  const Clock::time_point begin = Clock::now();
  do {
    for (int i = 0; i < kRelaxes; ++i) {
      if (condition()) return true;
      relax();
    }
  } while (seconds_since(begin) < seconds);
  return condition();
}

struct Team {
  alignas(64) Word region{0};           // its number: changes when one begins
  Word asleep{0};                       // threads
  alignas(64) Word gate{0};             // of the region
  alignas(64) TeamBody body = nullptr;  // this and the next two change while the gate is closed
  void* context = nullptr;
  int64_t workers = 0;
  std::atomic<int> core{-1};  // of the caller
  std::atomic<bool> ends{false};
  int64_t threads = 1;  // of the caller as well
  Stragglers stragglers;

  void run(int64_t count, TeamBody region_body, void* region_context) {
    if (stragglers.expected()) return region_body(0, region_context);
    body = region_body;
    context = region_context;
    workers = count;
    core.store(this_core(), std::memory_order_relaxed);
    gate.store(((gate.load(std::memory_order_relaxed) + kOneRegion) & kRegions) | kOpen);
    region.fetch_add(1);
    if (asleep.load() > 0) wake_all(&region);
    const Clock::time_point begin = Clock::now();
    body(0, context);
    close(begin);
  }

  void close(Clock::time_point begin) {
    const auto empty = [&] { return (gate.load(std::memory_order_acquire) & kInside) == 0; };
    gate.fetch_and(~kOpen);
    if (empty() || comes_true(kPatience, empty)) return;
    const Clock::time_point done = Clock::now();
    gate.fetch_or(kCallerSleeps);
    for (uint32_t now; ((now = gate.load()) & kInside) != 0;) sleep_while(&gate, now);
    stragglers.waited(seconds_since(done), std::chrono::duration<double>(done - begin).count());
  }

  bool enter() {
    for (uint32_t now = gate.load(); now & kOpen;)
      if (gate.compare_exchange_weak(now, now + 1)) return true;
    return false;
  }

  void leave() {
    const uint32_t before = gate.fetch_sub(1);
    if ((before & kInside) == 1 && (before & kCallerSleeps)) wake_all(&gate);
  }

  void serve(int64_t worker) {
    for (uint32_t seen = 0;;) {
      const auto begins = [&] { return region.load(std::memory_order_acquire) != seen; };
      const int callers = core.load(std::memory_order_relaxed);
      if (runs_on(callers) || !comes_true(kLookOut, begins)) {  // it would be in the caller's way
        const KeptOff kept_off(callers);
        asleep.fetch_add(1);
        while (!begins()) sleep_while(&region, seen);
        asleep.fetch_sub(1);
      }
      seen = region.load();
      if (ends.load()) return;
      if (const int now = core.load(std::memory_order_relaxed); runs_on(now))
        const KeptOff moved(now);
      if (!enter()) continue;
      if (worker < workers) body(worker, context);
      leave();
    }
  }
};

thread_local bool inside_region = false;

struct Place {
  std::shared_ptr<Team> team;
  int64_t worker;
  Cores cores;
};

void* serve(void* given) {
  const std::unique_ptr<Place> place(static_cast<Place*>(given));
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);  // they are for the threads of the program
  place->cores.allow();
  wake_promptly();
  const FlushDenormals flush;
  inside_region = true;
  place->team->serve(place->worker);
  return nullptr;
}

// A thread that begins on another core than this one.
bool start_thread(Place* place) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  begin_off(this_core(), place->cores, attributes);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attributes, serve, place) == 0;
  pthread_attr_destroy(&attributes);
  if (!started) delete place;
  return started;
}

// A forked process has none of the threads.
std::atomic<uint32_t> forks{0};

struct Owner {
  std::shared_ptr<Team> team;
  uint32_t made_after = 0;

  ~Owner() { end(); }

  void end() {
    if (!team) return;
    team->ends.store(true);
    team->region.fetch_add(1);
    wake_all(&team->region);
    team.reset();
  }

  Team& with_threads(int64_t count) {
    if (team && made_after != forks.load()) team.reset();
    if (!team) {
      static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
      static_cast<void>(registered);
      made_after = forks.load();
      team = std::make_shared<Team>();
    }
    // where the system has no thread left, those that are there do the work
    while (team->threads < count && start_thread(new Place{team, team->threads, {}}))
      ++team->threads;
    return *team;
  }
};

thread_local Owner owner;

}  // namespace

void run_team(int64_t workers, TeamBody body, void* context) {
  if (workers <= 1 || inside_region) return body(0, context);
  Team& team = owner.with_threads(workers);
  inside_region = true;
  team.run(workers, body, context);
  inside_region = false;
}

bool team_is_awake() { return owner.team && owner.team->asleep.load() == 0; }

bool in_region() { return inside_region; }

}  // namespace mlpkern::cpu
