// The sparse operators for CPUs; interface.py and reference.py define their arguments and results.
// The inner loops are in cpu_kernels.h, what they are called with in cpu_call.h. torch::stable's parallel_for runs on torch's own thread pool; at::parallel_for
// would not if this library were linked to another OpenMP.

#include "cpu_call.h"
#include "elementwise.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/stable/ops.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "instruction_set.h"
#include "quantized.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace prosparse {
namespace {

using at::ScalarType;
using at::Tensor;
using c10::BFloat16;
using c10::Half;
using torch::stable::parallel_for;

// Wake a thread only for at least this many bytes, which take a few microseconds to read.
constexpr int64_t TASK_BYTES = 65536;
constexpr int64_t MAX_BATCH = 8;

int64_t tasks_for(int64_t bytes) {
  return std::clamp<int64_t>(bytes / TASK_BYTES, 1, torch::stable::get_num_threads());
}

#ifndef BASELINE_WIDTH
#define BASELINE_WIDTH 4  // of SSE2 and NEON; the tests also use 16, to run AVX-512's loops on machines without it
#endif

namespace baseline {
constexpr int WIDTH = BASELINE_WIDTH;
typedef float HalvesAsFloats __attribute__((vector_size(4 * WIDTH)));
inline HalvesAsFloats halves_to_floats(const Half* from) {
  HalvesAsFloats values;
  for (int i = 0; i < WIDTH; ++i) values[i] = from[i];
  return values;
}
inline void floats_to_halves(HalvesAsFloats values, Half* to) {
  for (int i = 0; i < WIDTH; ++i) to[i] = values[i];
}
template <typename Words>
inline uint32_t sign_bits(Words words) {
  uint32_t bits = 0;
  for (int i = 0; i < WIDTH; ++i) bits |= words[i] >> 31 << i;
  return bits;
}
#include "cpu_kernels.h"
#include "elementwise_kernels.h"
}  // namespace baseline

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi")
#endif
namespace avx2 {
constexpr int WIDTH = 8;
inline __m256 halves_to_floats(const Half* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void floats_to_halves(__m256 values, Half* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}
template <typename Words>
inline uint32_t sign_bits(Words words) { return _mm256_movemask_ps((__m256)words); }
#include "cpu_kernels.h"
#include "elementwise_kernels.h"
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,bmi"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,bmi")
#endif
// AVX-512 BF16's dot product is not used: it flushes denormals, and reading the weights dominates anyway.
namespace avx512 {
constexpr int WIDTH = 16;
inline __m512 halves_to_floats(const Half* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline void floats_to_halves(__m512 values, Half* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}
template <typename Words>
inline uint32_t sign_bits(Words words) { return _mm512_movepi32_mask((__m512i)words); }
#include "cpu_kernels.h"
#include "elementwise_kernels.h"
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__

template <typename T>
void run(Call call) {
  call.threshold = static_cast<T>(call.threshold);
#if defined(__x86_64__)
  if (instruction_set() >= InstructionSet::AVX512) return avx512::run<T>(call);
  if (instruction_set() == InstructionSet::AVX2) return avx2::run<T>(call);
#endif
  baseline::run<T>(call);
}

}  // namespace

void run(const Call& call, ScalarType type) {
  switch (type) {
    case ScalarType::BFloat16: return run<BFloat16>(call);
    case ScalarType::Half: return run<Half>(call);
    default: return run<float>(call);
  }
}

template <typename T>
const Elementwise<T>& elementwise() {
#if defined(__x86_64__)
  if (instruction_set() >= InstructionSet::AVX512) return avx512::ELEMENTWISE<T>;
  if (instruction_set() == InstructionSet::AVX2) return avx2::ELEMENTWISE<T>;
#endif
  return baseline::ELEMENTWISE<T>;
}

template const Elementwise<BFloat16>& elementwise();
template const Elementwise<Half>& elementwise();
template const Elementwise<float>& elementwise();

namespace {

// The same checks as in interface.py, which would cost microseconds per call in Python.

void check_rows(const char* name, const Tensor& tensor, const Tensor& like) {
  TORCH_CHECK_VALUE(tensor.dim() == 2, name, " must have 2 dimensions, not ", tensor.dim());
  TORCH_CHECK_VALUE(tensor.size(1) <= 1 || tensor.stride(1) == 1, name, " must have contiguous rows: stride(1) is ",
      tensor.stride(1), ", call .contiguous() once");
  const ScalarType type = tensor.scalar_type();
  TORCH_CHECK_VALUE(type == ScalarType::BFloat16 || type == ScalarType::Half || type == ScalarType::Float, name,
      ": one of bfloat16, float16 and float32 is needed");
  TORCH_CHECK_VALUE(type == like.scalar_type(), name, " and x must have the same dtype");
}

bool is_packed(const Tensor& weight) {
  return weight.scalar_type() == ScalarType::Char || weight.scalar_type() == ScalarType::Byte;
}

void check_size(const char* name, int64_t found, const char* of, int64_t expected) {
  TORCH_CHECK_VALUE(found == expected, name, " is ", found, ", but ", of, " is ", expected);
}

// Checks a weight matrix, and returns how many values its rows hold.
int64_t columns_of(const char* name, const Tensor& weight, const Tensor& like) {
  if (!is_packed(weight)) {
    check_rows(name, weight, like);
    return weight.size(1);
  }
  TORCH_CHECK_VALUE(weight.dim() == 2, name, " must have 2 dimensions, not ", weight.dim());
  TORCH_CHECK_VALUE(weight.size(1) <= 1 || weight.stride(1) == 1, name, " must have contiguous rows: stride(1) is ",
      weight.stride(1), ", call .contiguous() once");
  using namespace prosparse::quantized;
  const int64_t block = value_bytes(weight.scalar_type() == ScalarType::Char ? Format::Q8_0 : Format::Q4_0) + SCALE_BYTES;
  TORCH_CHECK_VALUE(weight.size(1) % block == 0, name, " has rows of ", weight.size(1), " bytes, not a multiple of a block's ", block);
  return weight.size(1) / block * BLOCK;
}

void check_batch(const char* name, int64_t batch) {
  TORCH_CHECK_VALUE(batch >= 1 && batch <= MAX_BATCH, name, " has ", batch, " rows; the sparse operators take 1 to ", MAX_BATCH,
      " tokens");
}

void set_input(Call& call, const Tensor& x, const char* name, const Tensor& weight) {
  check_rows("x", x, x);
  call.up_columns = columns_of(name, weight, x);
  check_batch("x", x.size(0));
  const char* const columns = is_packed(weight) ? "'s columns" : ".shape[1]";
  check_size("x.shape[1]", x.size(1), (std::string(name) + columns).c_str(), call.up_columns);
  call.has_up = true;
  call.batch = x.size(0);
  call.intermediate_size = weight.size(0);
  call.x = x.const_data_ptr();
  call.x_stride = x.stride(0);
  call.up_weight = weight.const_data_ptr();
  call.up_stride = weight.stride(0);
}

void set_values(Call& call, Values are, const Tensor& x, const char* name, const Tensor& values, const char* rows, double threshold) {
  check_rows(name, values, x);
  check_size((std::string(name) + ".shape[0]").c_str(), values.size(0), "x.shape[0]", call.batch);
  check_size((std::string(name) + ".shape[1]").c_str(), values.size(1), rows, call.intermediate_size);
  call.values_are = are;
  call.values = values.const_data_ptr();
  call.values_stride = values.stride(0);
  call.threshold = static_cast<float>(threshold);
}

void set_up(Call& call, const Tensor& x, const Tensor& gate, const Tensor& up_weight, double threshold, bool relu_up) {
  TORCH_CHECK_VALUE(threshold >= 0 && std::isfinite(threshold), "threshold must be finite and not negative, not ", threshold);
  set_input(call, x, "up_weight", up_weight);
  set_values(call, GATES, x, "gate", gate, "up_weight.shape[0]", threshold);
  call.relu_up = relu_up;
}

void set_down(Call& call, const Tensor& like, const Tensor& down_weight_transposed, const std::optional<Tensor>& largest_scales) {
  call.has_down = true;
  call.down_weight = down_weight_transposed.const_data_ptr();
  call.down_stride = down_weight_transposed.stride(0);
  call.down_columns = columns_of("down_weight_transposed", down_weight_transposed, like);
  if (!largest_scales.has_value()) return;
  TORCH_CHECK_VALUE(is_packed(down_weight_transposed), "largest_scales are for weights in Q8_0 and Q4_0");
  TORCH_CHECK_VALUE(largest_scales->dim() == 1 && largest_scales->is_contiguous() &&
      largest_scales->size(0) == down_weight_transposed.size(0) && largest_scales->scalar_type() == ScalarType::Float,
      "largest_scales must be float32, contiguous, one for each row of down_weight_transposed");
  call.largest_scales = largest_scales->const_data_ptr<float>();
}

void run(const Call& call, const Tensor& x, const Tensor& weight) {
  if (is_packed(weight)) return run_quantized(call, x.scalar_type(), weight.scalar_type());
  run(call, x.scalar_type());
}

Tensor sparse_up(const Tensor& x, const Tensor& gate, const Tensor& up_weight, double threshold, bool relu_up) {
  Call call{};
  set_up(call, x, gate, up_weight, threshold, relu_up);
  Tensor x1 = at::empty({call.batch, call.intermediate_size}, x.options());
  call.output = x1.mutable_data_ptr();
  run(call, x, up_weight);
  return x1;
}

Tensor sparse_down(const Tensor& x1, const Tensor& down_weight_transposed, const std::optional<Tensor>& largest_scales) {
  Call call{};
  check_rows("x1", x1, x1);
  check_batch("x1", x1.size(0));
  set_down(call, x1, down_weight_transposed, largest_scales);
  check_size("x1.shape[1]", x1.size(1), "down_weight_transposed.shape[0]", down_weight_transposed.size(0));
  call.batch = x1.size(0);
  call.intermediate_size = x1.size(1);
  call.values_are = X1;
  call.values = x1.const_data_ptr();
  call.values_stride = x1.stride(0);
  Tensor output = at::empty({call.batch, call.down_columns}, x1.options());
  call.output = output.mutable_data_ptr();
  run(call, x1, down_weight_transposed);
  return output;
}

Tensor ffn(const Tensor& x, const Tensor& gate, const Tensor& up_weight, const Tensor& down_weight_transposed, double threshold,
    const std::optional<Tensor>& largest_scales, bool relu_up, bool every) {
  Call call{};
  set_up(call, x, gate, up_weight, threshold, relu_up);
  set_down(call, x, down_weight_transposed, largest_scales);
  TORCH_CHECK_VALUE(up_weight.scalar_type() == down_weight_transposed.scalar_type(),
      "up_weight and down_weight_transposed must have the same dtype");
  check_size("down_weight_transposed.shape[0]", down_weight_transposed.size(0), "up_weight.shape[0]", up_weight.size(0));
  call.every = every;
  Tensor output = at::empty({call.batch, call.down_columns}, x.options());
  call.output = output.mutable_data_ptr();
  run(call, x, up_weight);
  return output;
}

Tensor sparse_ffn(const Tensor& x, const Tensor& gate, const Tensor& up_weight, const Tensor& down_weight_transposed,
    double threshold, const std::optional<Tensor>& largest_scales, bool relu_up) {
  return ffn(x, gate, up_weight, down_weight_transposed, threshold, largest_scales, relu_up, false);
}

Tensor dense_ffn(const Tensor& x, const Tensor& gate, const Tensor& up_weight, const Tensor& down_weight_transposed,
    double threshold, const std::optional<Tensor>& largest_scales, bool relu_up) {
  return ffn(x, gate, up_weight, down_weight_transposed, threshold, largest_scales, relu_up, true);
}

Tensor linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& score, double threshold) {
  Call call{};
  TORCH_CHECK_VALUE(std::isfinite(threshold), "threshold must be finite, not ", threshold);
  set_input(call, x, "weight", weight);
  call.every = !score.has_value();
  if (score.has_value()) set_values(call, SCORES, x, "score", *score, "weight.shape[0]", threshold);
  Tensor output = at::empty({call.batch, call.intermediate_size}, x.options());
  call.output = output.mutable_data_ptr();
  run(call, x, weight);
  return output;
}

template <typename T>
void attend(const Attention& call) {
  const int64_t tasks = tasks_for(2 * call.heads * call.length * call.head_size * static_cast<int64_t>(sizeof(T)));
  parallel_for(0, call.heads, (call.heads + tasks - 1) / tasks, [&](int64_t first, int64_t last) {
#if defined(__x86_64__)
    if (instruction_set() >= InstructionSet::AVX512) return avx512::attend<T>(call, first, last);
    if (instruction_set() == InstructionSet::AVX2) return avx2::attend<T>(call, first, last);
#endif
    baseline::attend<T>(call, first, last);
  });
}

}  // namespace

void attend(const Attention& call, ScalarType type) {
  switch (type) {
    case ScalarType::BFloat16: return attend<BFloat16>(call);
    case ScalarType::Half: return attend<Half>(call);
    default: return attend<float>(call);
  }
}

namespace {

Tensor attention(const Tensor& query, const Tensor& keys, const Tensor& values, double scale) {
  check_rows("query", query, query);
  for (const auto& [name, tensor] : {std::pair("keys", keys), std::pair("values", values)}) {
    TORCH_CHECK_VALUE(tensor.dim() == 3 && tensor.stride(2) == 1, name, " must have 3 dimensions, the last contiguous");
    TORCH_CHECK_VALUE(tensor.scalar_type() == query.scalar_type(), name, " and query must have the same dtype");
    check_size((std::string(name) + ".shape[2]").c_str(), tensor.size(2), "query.shape[1]", query.size(1));
  }
  check_size("values.shape[0]", values.size(0), "keys.shape[0]", keys.size(0));
  check_size("values.shape[1]", values.size(1), "keys.shape[1]", keys.size(1));
  TORCH_CHECK_VALUE(keys.size(0) > 0 && query.size(0) % keys.size(0) == 0, "query has ", query.size(0),
      " heads, which is not a multiple of the keys' ", keys.size(0));
  TORCH_CHECK_VALUE(keys.size(1) > 0, "there are no keys");
  Tensor output = at::empty({query.size(0), query.size(1)}, query.options());
  const Attention call{query.size(0), keys.size(0), query.size(1), keys.size(1), query.const_data_ptr(), keys.const_data_ptr(),
      values.const_data_ptr(), query.stride(0), keys.stride(0), keys.stride(1), values.stride(0), values.stride(1),
      static_cast<float>(scale), output.mutable_data_ptr()};
  attend(call, query.scalar_type());
  return output;
}

int64_t read_rows(const Tensor& weight, const Tensor& rows) {
  TORCH_CHECK_VALUE(weight.dim() == 2 && weight.stride(1) == 1, "weight must have 2 dimensions and contiguous rows");
  TORCH_CHECK_VALUE(rows.dim() == 1 && rows.is_contiguous() && rows.scalar_type() == ScalarType::Long, "rows must be a list of int64");
  const int64_t* list = static_cast<const int64_t*>(rows.const_data_ptr());
  for (int64_t i = 0; i < rows.numel(); ++i)
    TORCH_CHECK_VALUE(list[i] >= 0 && list[i] < weight.size(0), "row ", list[i], " is not one of the ", weight.size(0), " rows");
  const int64_t bytes = weight.element_size();
  const auto read = [&](auto kernel) {
    return static_cast<int64_t>(kernel(static_cast<const char*>(weight.const_data_ptr()), weight.stride(0) * bytes,
        weight.size(1) * bytes, list, rows.numel()));
  };
#if defined(__x86_64__)
  if (instruction_set() >= InstructionSet::AVX512) return read(avx512::read_rows);
  if (instruction_set() == InstructionSet::AVX2) return read(avx2::read_rows);
#endif
  return read(baseline::read_rows);
}

}  // namespace
}  // namespace prosparse

TORCH_LIBRARY_FRAGMENT(prosparse, library) {
  library.def("read_rows(Tensor weight, Tensor rows) -> int");
  library.def("instruction_set() -> str", [] { return std::string(prosparse::quantized::kernels().instruction_set); });
  library.def("attention(Tensor query, Tensor keys, Tensor values, float scale) -> Tensor");
}

TORCH_LIBRARY_IMPL(prosparse, CPU, library) {
  library.impl("sparse_up", &prosparse::sparse_up);
  library.impl("sparse_down", &prosparse::sparse_down);
  library.impl("sparse_ffn", &prosparse::sparse_ffn);
  library.impl("dense_ffn", &prosparse::dense_ffn);
  library.impl("linear", &prosparse::linear);
  library.impl("read_rows", &prosparse::read_rows);
  library.impl("attention", &prosparse::attention);
}
