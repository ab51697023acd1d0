// dim3 and the vector types of CUDA, with its alignments.
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define MLPKERN_VECTOR_TYPES(name, T, two, four)                     \
  struct alignas(two) name##2 { T x, y; };                           \
  struct name##3 { T x, y, z; };                                     \
  struct alignas(four) name##4 { T x, y, z, w; };                    \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
MLPKERN_VECTOR_TYPES(char, signed char, 2, 4)
MLPKERN_VECTOR_TYPES(uchar, unsigned char, 2, 4)
MLPKERN_VECTOR_TYPES(short, short, 4, 8)
MLPKERN_VECTOR_TYPES(ushort, unsigned short, 4, 8)
MLPKERN_VECTOR_TYPES(int, int, 8, 16)
MLPKERN_VECTOR_TYPES(float, float, 8, 16)
MLPKERN_VECTOR_TYPES(double, double, 16, 16)
MLPKERN_VECTOR_TYPES(longlong, long long, 16, 16)
MLPKERN_VECTOR_TYPES(ulonglong, unsigned long long, 16, 16)
#undef MLPKERN_VECTOR_TYPES

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
