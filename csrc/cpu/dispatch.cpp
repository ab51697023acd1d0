// Chooses the instruction set once and forwards every launcher to the copy compiled for it.
//
// Compile alone:
// g++ -std=c++17 -O3 -Icsrc -DMLPKERN_X86=1 -c csrc/cpu/dispatch.cpp
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>

#include "cpu/threads/flush_denormals.h"
#include "kernels.h"

// CMake defines MLPKERN_X86 where it builds the avx2 and avx512 copies, MLPKERN_NEON where it
// builds neon. The last one runs on every CPU for which the library is built.
#if defined(MLPKERN_X86)
#define MLPKERN_ISAS(X) X(avx512) X(avx2) X(baseline)
#elif defined(MLPKERN_NEON)
#define MLPKERN_ISAS(X) X(neon)
#else
#define MLPKERN_ISAS(X) X(baseline)
#endif

namespace mlpkern::cpu {

struct KernelTable {
  const char* isa;
  double (*fma_peak)(double seconds);
#define MLPKERN_POINTERS(name, Args) \
  int64_t (*name)(const Args&);      \
  size_t (*name##_workspace)(const Args&);
  MLPKERN_KERNELS(MLPKERN_POINTERS)
};

// One table per instruction set, inside its namespace, where the plain names are its launchers.
#define MLPKERN_ENTRY(name, Args) name, name##_workspace,
#define MLPKERN_DECLARE_ISA(ns)                                                     \
  namespace ns {                                                                    \
  MLPKERN_KERNELS(MLPKERN_DECLARE_KERNEL)                                           \
  double fma_peak(double seconds);                                                  \
  static const KernelTable table = {#ns, fma_peak, MLPKERN_KERNELS(MLPKERN_ENTRY)}; \
  }
MLPKERN_ISAS(MLPKERN_DECLARE_ISA)

namespace {

#define MLPKERN_TABLE(ns) &ns::table,
const KernelTable* const kTables[] = {MLPKERN_ISAS(MLPKERN_TABLE)};  // best first

const KernelTable* everywhere() { return std::end(kTables)[-1]; }

bool runs_here(const char* isa) {
#ifdef MLPKERN_X86
  __builtin_cpu_init();
  if (!std::strcmp(isa, "avx512"))
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("fma");
  if (!std::strcmp(isa, "avx2"))
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return !std::strcmp(isa, everywhere()->isa);
}

const KernelTable* find(const char* isa) {
  for (const KernelTable* table : kTables)
    if (!std::strcmp(table->isa, isa) && runs_here(isa)) return table;
  return nullptr;
}

bool built(const char* isa) {
  for (const KernelTable* table : kTables)
    if (!std::strcmp(table->isa, isa)) return true;
  return false;
}

struct Choice {
  const KernelTable* table;
  std::string error;

  Choice() : table(best()) {
    const char* wanted = std::getenv("MLPKERN_ISA");
    if (!wanted || !*wanted) return;
    table = find(wanted);
    if (table) return;
    table = everywhere();
    error = std::string("MLPKERN_ISA is '") + wanted + "', which " +
            (built(wanted) ? "this CPU does not have" : "is no instruction set of this build") +
            "; expected one of " + isas_available();
  }

  static const KernelTable* best() {
    for (const KernelTable* table : kTables)
      if (runs_here(table->isa)) return table;
    return everywhere();
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
