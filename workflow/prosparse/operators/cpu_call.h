// What the CPU kernels compute, as plain C++: called by the operators (cpu.cpp) and the decoder (decoder.cpp).

#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "quantized.h"

namespace prosparse {

// Whether a weight of this type is in Q8_0 (Char) or Q4_0 (Byte).
inline bool is_packed(c10::ScalarType weights) {
  return weights == c10::ScalarType::Char || weights == c10::ScalarType::Byte;
}

// Values in a weight's row of so many elements.
inline int64_t columns_in(c10::ScalarType weights, int64_t elements) {
  if (!is_packed(weights)) return elements;
  const auto format = weights == c10::ScalarType::Char ? quantized::Format::Q8_0 : quantized::Format::Q4_0;
  return elements / (quantized::value_bytes(format) + quantized::SCALE_BYTES) * quantized::BLOCK;
}

// The values that decide which rows are read; a row's dot product is multiplied by them if they are gates.
enum Values { NONE, SCORES, GATES, X1 };

// Step (2), step (3) or both of one FFN; a linear layer is step (2) without a gate. Strides are in elements. (An empty
// tensor's data pointer is null.)
struct Call {
  bool has_up, has_down;
  bool every;  // read every row, regardless of the values
  int64_t batch, intermediate_size;
  Values values_are;
  const void* values;  // [batch, intermediate_size]
  int64_t values_stride;
  float threshold;  // run() rounds it to the weights' type
  bool relu_up;  // of gates: a row's dot product goes through a ReLU before it is multiplied by them
  const void* x;  // [batch, up_columns]
  int64_t x_stride;
  const void* up_weight;  // [intermediate_size, up_columns]
  int64_t up_stride, up_columns;
  const void* down_weight;  // transposed, [intermediate_size, down_columns]
  int64_t down_stride, down_columns;
  const float* largest_scales;  // of down_weight's rows, [intermediate_size]; null: packed weights' are searched
  void* output;  // [batch, down_columns], or x1 without step (3)
};

// Attention of one token, batch size 1. Strides are in elements.
struct Attention {
  int64_t heads, kv_heads, head_size, length;
  const void *query, *keys, *values;
  int64_t query_stride, key_head_stride, key_stride, value_head_stride, value_stride;
  float scale;
  void* output;  // [heads, head_size]
};

// Runs a call on torch's threads. `type` is that of all its tensors: bfloat16, float16 or float32.
void run(const Call& call, c10::ScalarType type);
// The same for weights in Q8_0 (Char) or Q4_0 (Byte): their strides are in bytes, their columns still in values. `type` is
// that of all other tensors.
void run_quantized(const Call& call, c10::ScalarType type, c10::ScalarType weights);
void attend(const Attention& call, c10::ScalarType type);

}  // namespace prosparse
