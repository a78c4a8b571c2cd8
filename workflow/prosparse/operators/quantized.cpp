// The kernels of quantized.h for each instruction set.

#include "quantized.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "instruction_set.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace prosparse::quantized {
namespace {

// Any machine: one number after the other, in the order of the row.
namespace baseline {

float scale_at(const uint8_t* scales, int64_t block) {
  uint16_t half;
  std::memcpy(&half, scales + block * SCALE_BYTES, sizeof(half));
  const uint32_t magnitude = half & 0x7fffu;
  // the exponent's bias differs by 112; infinity and NaN keep the largest exponent
  uint32_t bits = magnitude << 13;
  float value;
  if (magnitude >= 0x7c00u) {
    bits |= 0x7f800000u;
    std::memcpy(&value, &bits, sizeof(value));
  } else {
    std::memcpy(&value, &bits, sizeof(value));
    value *= 0x1p112f;
  }
  return half & 0x8000u ? -value : value;
}

template <Format FORMAT>
int integer_at(const uint8_t* values, int64_t column) {
  if (FORMAT == Format::Q8_0) return static_cast<int8_t>(values[column]);
  const int64_t inside = column % BLOCK;
  const uint8_t both = values[column / BLOCK * (BLOCK / 2) + inside % (BLOCK / 2)];
  return (inside < BLOCK / 2 ? both & 15 : both >> 4) - 8;
}

int64_t select(const float* values, int64_t batch, int64_t size, Choice choice, float threshold, int32_t* list) {
  const int32_t* const begin = list;
  for (int64_t i = 0; i < size; ++i) {
    bool any = false;
    for (int64_t b = 0; b < batch; ++b) any |= is_chosen(values[b * size + i], choice, threshold);
    if (any) *list++ = static_cast<int32_t>(i);
  }
  return list - begin;
}

template <Format FORMAT>
void round_input(const float* x, int64_t columns, uint8_t* buffer) {
  float* const scales = reinterpret_cast<float*>(buffer + filled_up(columns));
  for (int64_t block = 0; block < columns / BLOCK; ++block) {
    const float* const from = x + block * BLOCK;
    int8_t* const to = reinterpret_cast<int8_t*>(buffer) + block * BLOCK;
    float largest = 0;
    bool finite = true;
    for (int i = 0; i < BLOCK; ++i) {
      finite &= std::isfinite(from[i]);
      largest = std::max(largest, std::fabs(from[i]));
    }
    const float inverse = 127 / largest;
    const bool divisible = finite && std::isfinite(inverse);
    scales[block] = divisible ? largest / 127 : finite ? 0 : NAN;
    for (int i = 0; i < BLOCK; ++i) to[i] = divisible ? static_cast<int8_t>(std::nearbyint(from[i] * inverse)) : 0;
  }
}

template <Format FORMAT>
void dot(const Matrix& matrix, const uint8_t* const* inputs, int64_t batch, const int32_t* rows, int64_t first,
    int64_t last, float* const* outputs) {
  for (int64_t i = first; i < last; ++i) {
    const int64_t row = rows == nullptr ? i : rows[i];
    const uint8_t *const scales = matrix.row(row), *const values = matrix.values(row);
    for (int64_t b = 0; b < batch; ++b) {
      const int8_t* const x = reinterpret_cast<const int8_t*>(inputs[b]);
      const float* const x_scales = reinterpret_cast<const float*>(inputs[b] + filled_up(matrix.columns));
      float total = 0;
      for (int64_t block = 0; block < matrix.blocks(); ++block) {
        int32_t product = 0;
        for (int64_t j = block * BLOCK; j < (block + 1) * BLOCK; ++j) product += integer_at<FORMAT>(values, j) * x[j];
        total += static_cast<float>(product) * (scale_at(scales, block) * x_scales[block]);
      }
      outputs[b][i] = total;
    }
  }
}

float largest_scale(const Matrix& matrix, int64_t row) {
  float largest = 0;
  for (int64_t block = 0; block < matrix.blocks(); ++block) {
    const float scale = std::fabs(scale_at(matrix.row(row), block));
    largest = scale <= largest ? largest : std::isfinite(scale) ? scale : INFINITY;
  }
  return largest;
}

template <Format FORMAT>
void add(const Matrix& matrix, const int32_t* rows, const float* factors, int64_t count, uint8_t* sum) {
  int64_t* const totals = reinterpret_cast<int64_t*>(sum);
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t *const scales = matrix.row(rows[i]), *const values = matrix.values(rows[i]);
    for (int64_t block = 0; block < matrix.blocks(); ++block) {
      const int32_t factor = static_cast<int32_t>(std::nearbyint(factors[i] * scale_at(scales, block)));
      for (int64_t j = block * BLOCK; j < (block + 1) * BLOCK; ++j) totals[j] += factor * integer_at<FORMAT>(values, j);
    }
  }
}

template <Format FORMAT>
void flush(int64_t, uint8_t*) {}

template <Format FORMAT>
void read(const uint8_t* const* sums, int64_t, int64_t count, double unit, int64_t first, int64_t last, float* output) {
  for (int64_t j = first; j < last; ++j) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; ++i) total += reinterpret_cast<const int64_t*>(sums[i])[j];
    output[j] = static_cast<float>(static_cast<double>(total) * unit);
  }
}

}  // namespace baseline

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi")
#endif
namespace avx2 {
constexpr int BYTES = 32, ROWS = 4, PAIRS = 2;  // rows and pairs that are walked at once
using Bytes = __m256i;
using Floats = __m256;
inline Bytes load_bytes(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store_bytes(void* to, Bytes value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
inline Floats load_floats(const float* from) { return _mm256_loadu_ps(from); }
inline Floats load_scales(const uint8_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline Floats zeros() { return _mm256_setzero_ps(); }
inline Floats all_floats(float value) { return _mm256_set1_ps(value); }
inline Bytes all_words(int16_t value) { return _mm256_set1_epi16(value); }
inline Bytes all_bytes(int8_t value) { return _mm256_set1_epi8(value); }
// Words of the two, in turn, within each 16 bytes.
inline Bytes interleave_low(Bytes a, Bytes b) { return _mm256_unpacklo_epi16(a, b); }
inline Bytes interleave_high(Bytes a, Bytes b) { return _mm256_unpackhi_epi16(a, b); }
inline Floats to_floats(Bytes integers) { return _mm256_cvtepi32_ps(integers); }
inline Bytes round_to_integers(Floats value) { return _mm256_cvtps_epi32(value); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
// The lanes that choose a row, as bits.
inline uint32_t chosen(Floats value, Choice choice, float threshold) {
  const uint32_t reached = _mm256_movemask_ps(_mm256_cmp_ps(value, all_floats(threshold), _CMP_GE_OQ));
  const uint32_t present = _mm256_movemask_ps(_mm256_cmp_ps(value, zeros(), _CMP_NEQ_UQ));
  return choice == Choice::REACHED ? reached : choice == Choice::NOT_ZERO ? present : reached & present;
}
inline Bytes larger(Bytes a, Bytes b) { return _mm256_max_epi32(a, b); }
inline Bytes magnitudes(Floats value) { return _mm256_castps_si256(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), value)); }
inline float sum(Floats value) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
// Spreads the numbers of a step's blocks over the lanes.
template <int BLOCKS>
inline Floats spread(Floats value, int step) {
  const Bytes inside = BLOCKS == 2 ? _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1) : _mm256_setzero_si256();
  return _mm256_permutevar8x32_ps(value, _mm256_add_epi32(_mm256_set1_epi32(step * BLOCKS), inside));
}
template <int BLOCKS>
inline Bytes spread(Bytes value, int step) {
  return _mm256_castps_si256(spread<BLOCKS>(_mm256_castsi256_ps(value), step));
}
inline Bytes words_of(Bytes low, Bytes high) { return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa); }
inline Bytes add_word_products(Bytes sums, Bytes a, Bytes b) { return _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)); }
// Adds products of unsigned and signed bytes, whose pairs must not exceed 16 bits.
inline Bytes add_byte_products(Bytes sums, Bytes a, Bytes b) {
  return _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}

template <Format FORMAT>
struct Weights;
template <>
struct Weights<Format::Q8_0> {
  Bytes values, magnitudes;
  explicit Weights(Bytes values) : values(values), magnitudes(_mm256_abs_epi8(values)) {}
  Bytes dot(const int8_t* x, const int32_t*) const {
    return add_byte_products(_mm256_setzero_si256(), magnitudes, _mm256_sign_epi8(load_bytes(x), values));
  }
};
template <Format FORMAT>
inline int32_t start_of(int32_t total) { return FORMAT == Format::Q4_0 ? -8 * total : 0; }

#include "quantized_kernels.h"
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c,bmi"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c,bmi")
#endif
namespace avx512_vnni {
constexpr int BYTES = 64, ROWS = 8, PAIRS = 4;  // rows and pairs that are walked at once
using Bytes = __m512i;
using Floats = __m512;
inline Bytes load_bytes(const void* from) { return _mm512_loadu_si512(from); }
inline void store_bytes(void* to, Bytes value) { _mm512_storeu_si512(to, value); }
inline Floats load_floats(const float* from) { return _mm512_loadu_ps(from); }
inline Floats load_scales(const uint8_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline Floats zeros() { return _mm512_setzero_ps(); }
inline Floats all_floats(float value) { return _mm512_set1_ps(value); }
inline Bytes all_words(int16_t value) { return _mm512_set1_epi16(value); }
inline Bytes all_bytes(int8_t value) { return _mm512_set1_epi8(value); }
inline Bytes interleave_low(Bytes a, Bytes b) { return _mm512_unpacklo_epi16(a, b); }
inline Bytes interleave_high(Bytes a, Bytes b) { return _mm512_unpackhi_epi16(a, b); }
inline Floats to_floats(Bytes integers) { return _mm512_cvtepi32_ps(integers); }
inline Bytes round_to_integers(Floats value) { return _mm512_cvtps_epi32(value); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline uint32_t chosen(Floats value, Choice choice, float threshold) {
  const uint32_t reached = _mm512_cmp_ps_mask(value, all_floats(threshold), _CMP_GE_OQ);
  const uint32_t present = _mm512_cmp_ps_mask(value, zeros(), _CMP_NEQ_UQ);
  return choice == Choice::REACHED ? reached : choice == Choice::NOT_ZERO ? present : reached & present;
}
inline Bytes larger(Bytes a, Bytes b) { return _mm512_max_epi32(a, b); }
inline Bytes magnitudes(Floats value) { return _mm512_castps_si512(_mm512_abs_ps(value)); }
inline float sum(Floats value) { return _mm512_reduce_add_ps(value); }
template <int BLOCKS>
inline Bytes lanes_of(int step) {
  const Bytes inside = BLOCKS == 4 ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                                   : _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  return _mm512_add_epi32(_mm512_set1_epi32(step * BLOCKS), inside);
}
template <int BLOCKS>
inline Floats spread(Floats value, int step) { return _mm512_permutexvar_ps(lanes_of<BLOCKS>(step), value); }
template <int BLOCKS>
inline Bytes spread(Bytes value, int step) { return _mm512_permutexvar_epi32(lanes_of<BLOCKS>(step), value); }
inline Bytes words_of(Bytes low, Bytes high) { return _mm512_mask_blend_epi16(0xaaaaaaaau, low, _mm512_slli_epi32(high, 16)); }
inline Bytes add_word_products(Bytes sums, Bytes a, Bytes b) { return _mm512_dpwssd_epi32(sums, a, b); }
inline Bytes add_byte_products(Bytes sums, Bytes a, Bytes b) { return _mm512_dpbusd_epi32(sums, a, b); }

template <Format FORMAT>
struct Weights;
template <>
struct Weights<Format::Q8_0> {
  Bytes values;  // counted from 0
  explicit Weights(Bytes values) : values(_mm512_xor_si512(values, _mm512_set1_epi8(-128))) {}
  Bytes dot(const int8_t* x, const int32_t* starts) const {
    return add_byte_products(load_bytes(starts), values, load_bytes(x));
  }
};
template <Format FORMAT>
inline int32_t start_of(int32_t total) { return (FORMAT == Format::Q4_0 ? -8 : -128) * total; }

#include "quantized_kernels.h"
}  // namespace avx512_vnni
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__

// Chooses the format of a kernel's template at run time.
#define BY_FORMAT(format, call) ((format) == Format::Q4_0 ? call<Format::Q4_0> : call<Format::Q8_0>)
#define KERNELS(set)                                                                                                       \
  {                                                                                                                        \
    #set, set::select,                                                                                                                  \
        [](Format format, const float* x, int64_t columns, uint8_t* input) {                                              \
          BY_FORMAT(format, set::round_input)(x, columns, input);                                                          \
        },                                                                                                                 \
        [](const Matrix& matrix, const uint8_t* const* inputs, int64_t batch, const int32_t* rows, int64_t first,         \
            int64_t last, float* const* outputs) {                                                                         \
          BY_FORMAT(matrix.format, set::dot)(matrix, inputs, batch, rows, first, last, outputs);                          \
        },                                                                                                                 \
        set::largest_scale,                                                                                                \
        [](const Matrix& matrix, const int32_t* rows, const float* factors, int64_t count, uint8_t* sum) {                \
          BY_FORMAT(matrix.format, set::add)(matrix, rows, factors, count, sum);                                          \
        },                                                                                                                 \
        [](Format format, int64_t columns, uint8_t* sum) { BY_FORMAT(format, set::flush)(columns, sum); },                \
        [](Format format, const uint8_t* const* sums, int64_t columns, int64_t count, double unit, int64_t first,         \
            int64_t last, float* output) {                                                                                 \
          BY_FORMAT(format, set::read)(sums, columns, count, unit, first, last, output);                                  \
        },                                                                                                                 \
  }

}  // namespace

const Kernels& kernels() {
  static const Kernels chosen = []() -> Kernels {
#if defined(__x86_64__)
    if (instruction_set() == InstructionSet::AVX512_VNNI) return KERNELS(avx512_vnni);
    if (instruction_set() >= InstructionSet::AVX2) return KERNELS(avx2);
#endif
    return KERNELS(baseline);
  }();
  return chosen;
}

}  // namespace prosparse::quantized
