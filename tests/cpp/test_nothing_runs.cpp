// A library whose instruction sets this CPU does not run, as in a home folder shared by machines:
// it loads and says so, and its launchers throw instead of running what the CPU cannot.
//
// CMake compiles dispatch.cpp into this program, for a set that no CPU has.
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "cpu/dispatch.h"
#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace mlpkern::cpu::nowhere {
#define STUB(name, Args)                      \
  int64_t name(const Args&) { std::abort(); } \
  size_t name##_workspace(const Args&) { std::abort(); }
MLPKERN_KERNELS(STUB)
double fma_peak(double) { std::abort(); }
Sharing train_steps_sharing(const TrainSteps&) { std::abort(); }
}  // namespace mlpkern::cpu::nowhere

namespace {

template <class Call>
bool refuses(const Call& call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return !std::strcmp(error.what(), cpu::isa_error());
  }
  return false;
}

}  // namespace

TEST_CASE(nothing_is_available_and_the_reason_names_what_was_built) {
  CHECK(!std::strcmp(cpu::isa(), "none"), "isa() is %s", cpu::isa());
  CHECK(!*cpu::isas_available(), "the list is %s", cpu::isas_available());
  CHECK(cpu::isa_error() && std::strstr(cpu::isa_error(), "built for nowhere, which this CPU"),
        "isa_error() is %s", cpu::isa_error());
  CHECK(!cpu::set_isa("nowhere") && !cpu::set_isa("none"), "a set that cannot run was taken");
}

TEST_CASE(every_launcher_refuses) {
#define REFUSES(name, Args)                                                                   \
  CHECK(refuses([] { cpu::name(Args{}); }) && refuses([] { cpu::name##_workspace(Args{}); }), \
        #name " does not refuse");
  MLPKERN_KERNELS(REFUSES)
  CHECK(refuses([] { cpu::fma_peak(0); }), "fma_peak does not refuse");
  CHECK(refuses([] { cpu::train_steps_sharing(TrainSteps{}); }), "train_steps_sharing goes on");
}
