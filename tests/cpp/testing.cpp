#include "testing.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace mlpkern::testing {
namespace {

constexpr size_t kGuard = 256;  // bytes on each side; a multiple of every vector width
constexpr unsigned char kGuardByte = 0xA5;
constexpr int kMostPrinted = 20;
constexpr int64_t kLarge = 3 << 19;  // multiply-adds; a third of it is enough for several threads

struct Registered {
  const char* name;
  void (*body)();
};

std::vector<Registered>& cases() {
  static std::vector<Registered> all;
  return all;
}

const char* running = "";
const char* (*place)() = nullptr;
std::string context;
int failures = 0;
int64_t small_cases = 0;  // of the running test case

double bf16_to_double(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

uint16_t bf16_from_double(double value) {
  const float narrow = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &narrow, sizeof bits);
  if (std::isnan(narrow)) return 0x7FC0;
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

double f16_to_double(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1F;
  const int mantissa = bits & 0x3FF;
  double value;
  if (exponent == 0x1F)
    value = mantissa ? std::nan("") : std::numeric_limits<double>::infinity();
  else if (exponent == 0)
    value = std::ldexp(mantissa, -24);
  else
    value = std::ldexp(mantissa + 1024, exponent - 25);
  return bits & 0x8000 ? -value : value;
}

uint16_t f16_from_double(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7E00;
  if (size >= 65520) return sign | 0x7C00;
  int exponent = 0;
  std::frexp(size, &exponent);
  exponent = size > 0 && exponent - 1 > -14 ? exponent - 1 : -14;
  // The carry of a rounded-up mantissa correctly increments the exponent.
  const auto steps = static_cast<uint16_t>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return sign | static_cast<uint16_t>(((exponent + 14) << 10) + steps);
}

}  // namespace

Case::Case(const char* name, void (*body)()) { cases().push_back({name, body}); }

void fail(const char* file, int line, const std::string& message) {
  if (++failures > kMostPrinted) return;
  std::fprintf(stderr, "%s:%d: %s [%s] %s\n", file, line, running, context.c_str(),
               message.c_str());
  // One failure is enough for the mutation test (tests/cuda/mutation/mutate.py).
  if (std::getenv("MLPKERN_LEAVE_OUT")) std::exit(1);
}

bool quick() {
  static const bool asked = std::getenv("MLPKERN_TEST_QUICK") != nullptr;
  return asked;
}

static int sample() {
  static const int every = quick() ? std::atoi(std::getenv("MLPKERN_TEST_QUICK")) : 1;
  return every;
}

bool sampled() { return sample() > 1; }

bool left_out(int64_t multiply_adds) {
  return sampled() && (multiply_adds > kLarge || small_cases++ % sample() != 0);
}

void set_context(const std::string& text) { context = text; }

void set_place(const char* (*name)()) { place = name; }

std::string format(const char* pattern, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  return text;
}

size_t item_size(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 8;
    case DType::f32:
      return 4;
    default:
      return 2;
  }
}

size_t item_size(IndexType type) {
  switch (type) {
    case IndexType::u8:
      return 1;
    case IndexType::i16:
      return 2;
    case IndexType::i32:
      return 4;
    default:
      return 8;
  }
}

const char* name_of(DType dtype) {
  const char* const names[] = {"float32", "float64", "bfloat16", "float16"};
  return names[static_cast<int>(dtype)];
}

const char* name_of(IndexType type) {
  const char* const names[] = {"uint8", "int16", "int32", "int64"};
  return names[static_cast<int>(type)];
}

DType accumulator_of(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

double epsilon_of(DType dtype) {
  const double epsilons[] = {0x1p-23, 0x1p-52, 0x1p-7, 0x1p-10};
  return epsilons[static_cast<int>(dtype)];
}

Buffer::Buffer(size_t bytes, size_t offset)
    : memory_(bytes + 2 * kGuard + 64 + offset, kGuardByte), bytes_(bytes) {
  const auto start = reinterpret_cast<uintptr_t>(memory_.data()) + kGuard;
  data_ = reinterpret_cast<unsigned char*>((start + 63) / 64 * 64 + offset);
  poison();
  ASAN_POISON_MEMORY_REGION(data_ - kGuard, kGuard);
  ASAN_POISON_MEMORY_REGION(data_ + bytes_, kGuard);
}

Buffer::~Buffer() { ASAN_UNPOISON_MEMORY_REGION(memory_.data(), memory_.size()); }

void Buffer::poison() { std::memset(data_, 0xFF, bytes_); }

bool Buffer::guards_intact() {
  ASAN_UNPOISON_MEMORY_REGION(data_ - kGuard, bytes_ + 2 * kGuard);
  bool intact = true;
  for (size_t i = 1; i <= kGuard; ++i)
    intact = intact && data_[-static_cast<ptrdiff_t>(i)] == kGuardByte;
  for (size_t i = 0; i < kGuard; ++i) intact = intact && data_[bytes_ + i] == kGuardByte;
  ASAN_POISON_MEMORY_REGION(data_ - kGuard, kGuard);
  ASAN_POISON_MEMORY_REGION(data_ + bytes_, kGuard);
  return intact;
}

// One item past a multiple of 64 bytes, as a slice of a tensor may begin.
Values::Values(DType type, int64_t n)
    : dtype(type), count(n), buffer(static_cast<size_t>(n) * item_size(type), item_size(type)) {}

double Values::get(int64_t i) const {
  const auto* bytes = static_cast<const unsigned char*>(buffer.data()) + i * item_size(dtype);
  if (dtype == DType::f64) {
    double value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return dtype == DType::bf16 ? bf16_to_double(bits) : f16_to_double(bits);
}

void Values::set(int64_t i, double value) {
  auto* bytes = static_cast<unsigned char*>(buffer.data()) + i * item_size(dtype);
  if (dtype == DType::f64) {
    std::memcpy(bytes, &value, sizeof value);
  } else if (dtype == DType::f32) {
    const auto narrow = static_cast<float>(value);
    std::memcpy(bytes, &narrow, sizeof narrow);
  } else {
    const uint16_t bits = dtype == DType::bf16 ? bf16_from_double(value) : f16_from_double(value);
    std::memcpy(bytes, &bits, sizeof bits);
  }
}

std::vector<double> Values::doubles() const {
  std::vector<double> all(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) all[i] = get(i);
  return all;
}

void Values::randomize(double scale) {
  for (int64_t i = 0; i < count; ++i) {
    const double value = (uniform() + 0x1p-6) / (1 + 0x1p-6) * scale;
    set(i, uniform() < 0.5 ? -value : value);
  }
}

Ids::Ids(IndexType type_, int64_t n)
    : type(type_), count(n), buffer(static_cast<size_t>(n) * item_size(type_), item_size(type_)) {}

int64_t Ids::get(int64_t i) const {
  const size_t size = item_size(type);
  const auto* bytes = static_cast<const unsigned char*>(buffer.data()) + i * size;
  if (type == IndexType::u8) return *bytes;
  int16_t i16;
  int32_t i32;
  int64_t i64;
  if (type == IndexType::i16) return std::memcpy(&i16, bytes, size), i16;
  if (type == IndexType::i32) return std::memcpy(&i32, bytes, size), i32;
  return std::memcpy(&i64, bytes, size), i64;
}

void Ids::set(int64_t i, int64_t value) {
  // Little endian, like every CPU that this library is built for.
  std::memcpy(static_cast<unsigned char*>(buffer.data()) + i * item_size(type), &value,
              item_size(type));
}

void Ids::randomize(int64_t bound) {
  for (int64_t i = 0; i < count; ++i) set(i, static_cast<int64_t>(uniform() * bound));
}

double uniform() {
  static std::mt19937_64 generator(20260101);
  return static_cast<double>(generator() >> 11) * 0x1p-53;
}

}  // namespace mlpkern::testing

// Runs every case, or those whose name contains the first argument.
int main(int argc, char** argv) {
  using namespace mlpkern::testing;
  int run = 0;
  for (const auto& test : cases()) {
    if (argc > 1 && !std::strstr(test.name, argv[1])) continue;
    running = test.name;
    set_context("");
    small_cases = 0;
    test.body();
    ++run;
  }
  std::printf("%d cases%s%s: %d failures\n", run, place ? " on " : "", place ? place() : "",
              failures);
  return failures || !run ? 1 : 0;
}
