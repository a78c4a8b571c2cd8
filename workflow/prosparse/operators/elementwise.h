// What a decoder computes between its products of weights, on the calling thread. Every result is rounded to T as often
// as transformers' own modules round it, so that both decode the same tokens.
#pragma once

#include <cstdint>

namespace prosparse {

struct Norm {
  const void* weight;  // null: all ones
  const void* bias;  // null: none
  int64_t size;
  float epsilon;
  bool centred;  // LayerNorm; else RMSNorm
  float offset;  // added to the weight: 1 for Gemma
  bool narrow;  // round before multiplying by the weight, as LLaMA does
};

struct Rotary {
  const float *cosines, *sines;  // of the token's position, [size] each
  int64_t size;  // features of a head that are rotated: the first ones
  bool neighbours;  // rotate neighbouring features, not those half of `size` apart
  bool narrow;  // round products before adding them
};

template <typename T>
struct Elementwise {
  void (*normalize)(const Norm& norm, const T* x, T* output);
  // Rotates `heads` heads in place.
  void (*rotate)(const Rotary& rotary, T* x, int64_t heads, int64_t head_size);
  // total += factor * x
  void (*add)(T* total, const T* x, float factor, int64_t count);
  void (*scale)(T* x, float factor, int64_t count);
  // x = silu(x) * factors
  void (*silu)(T* x, const T* factors, int64_t count);
  // x = max(x - shift, 0)
  void (*shifted_relu)(T* x, float shift, int64_t count);
  // x = max(x, 0) squared
  void (*squared_relu)(T* x, int64_t count);
};

// Those for this machine's instruction set.
template <typename T>
const Elementwise<T>& elementwise();

}  // namespace prosparse
