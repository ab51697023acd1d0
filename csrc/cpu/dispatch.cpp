// Chooses the instruction set once and forwards every launcher to the copy compiled for it.
//
// Compile alone:
// g++ -std=c++17 -O3 -Icsrc "-DMLPKERN_ISAS=X(avx2) X(baseline)" -c csrc/cpu/dispatch.cpp
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/dispatch.h"
#include "cpu/isas.h"
#include "cpu/threads/flush_denormals.h"

// CMake defines MLPKERN_ISAS: X(name) for each instruction set that it builds, best first.

namespace mlpkern::cpu {

struct KernelTable {
  const char* isa;
  double (*fma_peak)(double seconds);
  Sharing (*train_steps_sharing)(const TrainSteps& args);
#define MLPKERN_POINTERS(name, Args) \
  int64_t (*name)(const Args&);      \
  size_t (*name##_workspace)(const Args&);
  MLPKERN_KERNELS(MLPKERN_POINTERS)
};

// One table per instruction set, inside its namespace, where the plain names are its launchers.
#define MLPKERN_ENTRY(name, Args) name, name##_workspace,
#define X(ns)                                                           \
  namespace ns {                                                        \
  MLPKERN_KERNELS(MLPKERN_DECLARE_KERNEL)                               \
  double fma_peak(double seconds);                                      \
  Sharing train_steps_sharing(const TrainSteps& args);                  \
  static const KernelTable table = {#ns, fma_peak, train_steps_sharing, \
                                    MLPKERN_KERNELS(MLPKERN_ENTRY)};    \
  }
MLPKERN_ISAS
#undef X

namespace {

#define X(ns) &ns::table,
const KernelTable* const kTables[] = {MLPKERN_ISAS};
#undef X

// Where none of them runs: a library that was built on another machine, for that machine alone.
template <class Result, class Args>
Result refuse(const Args&) {
  throw std::runtime_error(isa_error());
}
#define MLPKERN_REFUSE(name, Args) refuse<int64_t, Args>, refuse<size_t, Args>,
const KernelTable kNone = {"none", [](double seconds) { return refuse<double>(seconds); },
                           refuse<Sharing, TrainSteps>, MLPKERN_KERNELS(MLPKERN_REFUSE)};

const KernelTable* find(const char* isa) {
  for (const KernelTable* table : kTables)
    if (!std::strcmp(table->isa, isa) && runs_here(isa)) return table;
  return nullptr;
}

struct Choice {
  const KernelTable* table = &kNone;
  std::string error;

  Choice() {
    std::string built;
    for (const KernelTable* it : kTables) {
      built += (built.empty() ? "" : ",") + std::string(it->isa);
      if (table == &kNone && runs_here(it->isa)) table = it;
    }
    const char* wanted = std::getenv("MLPKERN_ISA");
    if (table == &kNone) {
      error =
          "mlpkern._C was built for " + built +
          ", which this CPU does not run (`MLPKERN_ISAS=native pip install -e .` builds for it)";
    } else if (wanted && *wanted) {
      if (const KernelTable* named = find(wanted))
        table = named;
      else
        error = why_not(wanted);
    }
  }

  static std::string why_not(const std::string& wanted) {
    const std::string available = isas_available();
    const std::string why =
        runs_here(wanted.c_str())
            ? "was not built (`MLPKERN_ISAS=" + available + "," + wanted + " pip install -e .`)"
            : "is no instruction set of this CPU";
    return "MLPKERN_ISA is '" + wanted + "', which " + why + "; expected one of " + available;
  }
};

Choice& choice() {
  static Choice chosen;
  return chosen;
}

}  // namespace

#define MLPKERN_FORWARD(name, Args)    \
  int64_t name(const Args& args) {     \
    const FlushDenormals flush;        \
    return choice().table->name(args); \
  }                                    \
  size_t name##_workspace(const Args& args) { return choice().table->name##_workspace(args); }
MLPKERN_KERNELS(MLPKERN_FORWARD)

double fma_peak(double seconds) { return choice().table->fma_peak(seconds); }

Sharing train_steps_sharing(const TrainSteps& args) {
  return choice().table->train_steps_sharing(args);
}

const char* isa() { return choice().table->isa; }

const char* isa_error() {
  const std::string& error = choice().error;
  return error.empty() ? nullptr : error.c_str();
}

const char* isas_available() {
  static char list[64];
  if (!*list) {
    for (const KernelTable* table : kTables) {
      if (!runs_here(table->isa)) continue;
      if (*list) std::strcat(list, ",");
      std::strcat(list, table->isa);
    }
  }
  return list;
}

bool set_isa(const char* name) {
  const KernelTable* table = find(name);
  if (table) choice().table = table;
  return table != nullptr;
}

}  // namespace mlpkern::cpu
