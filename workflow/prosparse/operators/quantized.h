// Matrices in Q8_0 and Q4_0, and the kernels that compute with them; no torch, no threads. quantized.py lays the rows
// out: a row's float16 scales, then its values, both in order.
//
// A product of a row and a vector rounds the vector to 8 bits per block of 32, as ggml does, and adds each block's
// integer product in float. A sum of rows rounds each row's factor times a block's scale to 16 bits of fixed point, whose
// unit is that of the whole sum, and adds integers: the result depends neither on the order of the rows nor on the
// instruction set, and a row with factor 0 changes nothing.
#pragma once

#include <cstdint>

namespace prosparse::quantized {

enum class Format { Q8_0, Q4_0 };

constexpr int64_t BLOCK = 32;  // columns that share a scale
constexpr int64_t SCALE_BYTES = 2;
constexpr int64_t PADDING = 512;  // columns; buffers are filled up to a multiple
constexpr int64_t MAX_BATCH = 8;

constexpr int64_t value_bytes(Format format) { return format == Format::Q8_0 ? BLOCK : BLOCK / 2; }
constexpr int64_t filled_up(int64_t columns) { return (columns + PADDING - 1) / PADDING * PADDING; }

struct Matrix {
  Format format;
  int64_t columns;  // a multiple of BLOCK
  int64_t stride;  // bytes from a row to the next
  const uint8_t* data;

  int64_t blocks() const { return columns / BLOCK; }
  const uint8_t* row(int64_t index) const { return data + index * stride; }
  const uint8_t* values(int64_t index) const { return row(index) + blocks() * SCALE_BYTES; }
};

// Bytes of a vector rounded to 8 bits; the buffer must be aligned to 64 bytes.
constexpr int64_t input_bytes(int64_t columns) { return filled_up(columns) * 17 / 8; }

// Bytes of a sum of rows; aligned likewise, and all zero at first.
constexpr int64_t sum_bytes(int64_t columns) { return filled_up(columns) * 12 + filled_up(columns) / 2; }

// Rows to add to a sum that has room for so many: then flush it.
constexpr int64_t rows_before_flush(Format format) { return format == Format::Q8_0 ? 512 : 4096; }

// Which values choose a row: those that reach the threshold, those that do and are not 0, or all but 0.
enum class Choice { REACHED, REACHED_NOT_ZERO, NOT_ZERO };

inline bool is_chosen(float value, Choice choice, float threshold) {
  return (choice == Choice::NOT_ZERO || value >= threshold) && (choice == Choice::REACHED || value != 0);
}

struct Kernels {
  const char* instruction_set;

  // Lists the rows that any of the values [batch, size] chooses, in ascending order, and returns their number.
  int64_t (*select)(const float* values, int64_t batch, int64_t size, Choice choice, float threshold, int32_t* list);

  // Rounds x [columns] for products with matrices of this format. Where a value is not finite, the products are NaN.
  void (*round_input)(Format format, const float* x, int64_t columns, uint8_t* input);

  // outputs[b][i] = row(i) . inputs[b] for first <= i < last, where row(i) is rows[i], or i if rows is null.
  void (*dot)(const Matrix& matrix, const uint8_t* const* inputs, int64_t batch, const int32_t* rows, int64_t first,
      int64_t last, float* const* outputs);

  // The largest absolute scale of a row; infinity if one is not finite.
  float (*largest_scale)(const Matrix& matrix, int64_t row);

  // sum += round(factors[i] * row(rows[i])'s scales) * its integers for i < count; |factor * scale| <= 32767.
  void (*add)(const Matrix& matrix, const int32_t* rows, const float* factors, int64_t count, uint8_t* sum);

  // Moves the sum's 32-bit part into its 64-bit part.
  void (*flush)(Format format, int64_t columns, uint8_t* sum);

  // output[j] = unit * (sums[0][j] + sums[1][j] + ...) for first <= j < last; first is a multiple of PADDING, last is one
  // or `columns`. The sums must have been flushed.
  void (*read)(Format format, const uint8_t* const* sums, int64_t columns, int64_t count, double unit, int64_t first,
      int64_t last, float* output);
};

// Those for this machine's best instruction set, or the lower one that ATEN_CPU_CAPABILITY asks of torch too.
const Kernels& kernels();

// The unit in which factors are rounded, given the largest |factor * scale| of the sum: pass factor / unit to `add` and
// unit to `read`. 0 if every product counts as zero.
inline float unit_of(float largest) { return largest < 0x1p-100f ? 0 : largest / 32766; }

}  // namespace prosparse::quantized
