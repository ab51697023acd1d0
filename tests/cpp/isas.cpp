// The part of the harness for the CPU kernels: every instruction set, several numbers of threads.
#include <dlfcn.h>

#include <sstream>

#include "cpu/dispatch.h"
#include "testing.h"

namespace mlpkern::testing {
namespace {

std::vector<std::string> isas() {
  std::vector<std::string> names;
  std::stringstream list(cpu::isas_available());
  for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  return names;
}

const bool registered = (set_place(cpu::isas_available), true);

}  // namespace

void set_threads(int count) {
  // Without torch the thread pool is the libgomp that parallel.cpp finds; without that, one thread.
  static void* const library = dlopen("libgomp.so.1", RTLD_LAZY);
  if (!library) return;
  reinterpret_cast<void (*)(int)>(dlsym(library, "omp_set_num_threads"))(count);
}

void for_each_isa(const std::string& label, const std::function<void()>& body) {
  for (const std::string& isa : isas()) {
    set_context(isa + ", " + label);
    CHECK(cpu::set_isa(isa.c_str()), "%s is listed but cannot be set", isa.c_str());
    body();
  }
}

void run_everywhere(const std::string& label, const std::vector<Buffer*>& outputs,
                    const std::function<int64_t()>& run, const std::function<void()>& check) {
  for (const std::string& isa : isas()) {
    CHECK(cpu::set_isa(isa.c_str()), "%s is listed but cannot be set", isa.c_str());
    std::vector<std::vector<unsigned char>> first;
    for (int threads : {1, 2, 3, 8}) {
      if (sampled() && (threads == 2 || threads == 8)) continue;
      set_context(format("%s, %d threads, ", isa.c_str(), threads) + label);
      set_threads(threads);
      for (Buffer* output : outputs) output->poison();
      const int64_t position = run();
      CHECK(position == -1, "an offender at %lld, all ids are good",
            static_cast<long long>(position));
      size_t index = 0;
      for (Buffer* output : outputs) {
        CHECK(output->guards_intact(), "wrote outside output %zu", index);
        const auto* bytes = static_cast<const unsigned char*>(output->data());
        if (threads == 1)
          first.emplace_back(bytes, bytes + output->size());
        else
          CHECK(std::vector<unsigned char>(bytes, bytes + output->size()) == first[index],
                "output %zu depends on the number of threads", index);
        ++index;
      }
      if (threads == 1) check();
    }
  }
  set_threads(2);
}

}  // namespace mlpkern::testing
