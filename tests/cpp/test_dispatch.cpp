// The choice of the instruction set: by name, by MLPKERN_ISA, and when that cannot be used.
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "cpu/dispatch.h"
#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

std::string self() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  return length > 0 ? std::string(path, static_cast<size_t>(length)) : std::string();
}

}  // namespace

TEST_CASE(the_best_is_listed_first_and_used) {
  const std::string list = cpu::isas_available();
  const std::string first = list.substr(0, list.find(','));
  CHECK(!first.empty(), "nothing of this build runs here");
  if (std::getenv("MLPKERN_ISA")) return;
  CHECK(std::string(cpu::isa()) == first && !cpu::isa_error(), "isa() is %s of %s", cpu::isa(),
        list.c_str());
}

TEST_CASE(a_listed_name_is_obeyed_and_another_changes_nothing) {
  for_each_isa("set_isa", [] {
    const std::string chosen = cpu::isa();
    CHECK(!cpu::set_isa("sse9") && !cpu::set_isa("") && !cpu::set_isa("AVX2"),
          "a bad name was taken");
    CHECK(cpu::isa() == chosen, "isa() is %s, was %s", cpu::isa(), chosen.c_str());
  });
}

// The next three run in a process of their own, because the environment is read once.
TEST_CASE(environment_obeyed) {
  const char* wanted = std::getenv("MLPKERN_ISA");
  if (!wanted) return;
  const bool known = std::strstr(cpu::isas_available(), wanted) != nullptr;
  CHECK((cpu::isa_error() == nullptr) == known, "isa_error() for %s", wanted);
  const std::string list = cpu::isas_available();
  CHECK(cpu::isa() == (known ? wanted : list.substr(0, list.find(','))),
        "isa() is %s for MLPKERN_ISA=%s", cpu::isa(), wanted);
}

TEST_CASE(environment_is_read_by_a_new_process) {
  if (std::getenv("MLPKERN_ISA")) return;  // this is the new process
  const std::string list = std::string(cpu::isas_available()) + ",sse9,";
  for (size_t begin = 0, end; (end = list.find(',', begin)) != std::string::npos; begin = end + 1) {
    const std::string isa = list.substr(begin, end - begin);
    const std::string command =
        "MLPKERN_ISA=" + isa + " " EMULATOR " '" + self() + "' environment_obeyed >&2";
    CHECK(std::system(command.c_str()) == 0, "%s failed", command.c_str());
  }
}
