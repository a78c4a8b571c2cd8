// The quantized kernels for one vector instruction set. quantized.cpp includes this file once per set, in a namespace
// that defines BYTES and the primitives on vectors: Bytes (integers), Floats, and what is done with them.
//
// A step is one vector of weights: BYTES / 16 blocks of Q4_0 or BYTES / 32 of Q8_0. A group is the LANES blocks whose
// scales fill a vector of floats. Several rows are walked at once, since a single stream cannot keep enough cache lines in
// flight, and so that they share the loads of the input.

constexpr int LANES = BYTES / 4;  // 32-bit numbers in a vector
using Words = int16_t __attribute__((vector_size(BYTES)));
using UnsignedWords = uint16_t __attribute__((vector_size(BYTES)));

template <Format FORMAT>
struct Layout {
  static constexpr int BLOCKS = FORMAT == Format::Q4_0 ? BYTES / 16 : BYTES / 32;  // per step
  static constexpr int STEPS = LANES / BLOCKS;  // per group
  static constexpr int INPUTS = FORMAT == Format::Q4_0 ? 2 : 1;  // input vectors per step
  static constexpr int SUMS = FORMAT == Format::Q4_0 ? 8 : 4;  // vectors of 32-bit sums per step
  static constexpr int COLUMNS = BLOCKS * BLOCK;  // per step
};

// A vector of weights; that of Q8_0 depends on the instruction set.
template <>
struct Weights<Format::Q4_0> {
  Bytes low, high;
  explicit Weights(Bytes values)
      : low(values & all_bytes(15)), high(Bytes(UnsignedWords(values) >> 4) & all_bytes(15)) {}
  Bytes dot(const int8_t* x, const int32_t* starts) const {
    return add_byte_products(add_byte_products(load_bytes(starts), low, load_bytes(x)), high, load_bytes(x + BYTES));
  }
};

// A rounded vector: its integers in the order in which steps need them, its scales, and what to start a step's integer
// sums from, so that weights may count from 0 upwards.
struct Input {
  const int8_t* values;
  const float* scales;
  const int32_t* starts;
};

inline Input input_at(const uint8_t* buffer, int64_t columns) {
  const int64_t filled = filled_up(columns);
  return {reinterpret_cast<const int8_t*>(buffer), reinterpret_cast<const float*>(buffer + filled),
      reinterpret_cast<const int32_t*>(buffer + filled * 9 / 8)};
}

// Rounds 32 values to 8 bits; returns their scale, NaN if a value is not finite. A scale too small to divide by is 0.
inline float round_block(const float* x, int8_t* to, int32_t& total) {
  uint32_t largest = 0;
  for (int i = 0; i < BLOCK; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof(bits));
    largest = std::max(largest, bits & 0x7fffffffu);
  }
  float most;
  std::memcpy(&most, &largest, sizeof(most));
  if (largest >= 0x7f800000u) return NAN;
  const float inverse = 127 / most;
  if (!std::isfinite(inverse)) return 0;
  alignas(64) int32_t rounded[BLOCK];
  for (int i = 0; i < BLOCK; i += LANES)
    store_bytes(rounded + i, round_to_integers(load_floats(x + i) * all_floats(inverse)));
  int32_t all = 0;
  for (int i = 0; i < BLOCK; ++i) {
    to[i] = static_cast<int8_t>(rounded[i]);
    all += rounded[i];
  }
  total = all;
  return most / 127;
}

template <Format FORMAT>
void round_input(const float* x, int64_t columns, uint8_t* buffer) {
  using L = Layout<FORMAT>;
  const int64_t filled = filled_up(columns);
  int8_t* const values = reinterpret_cast<int8_t*>(buffer);
  float* const scales = reinterpret_cast<float*>(buffer + filled);
  int32_t* const starts = reinterpret_cast<int32_t*>(buffer + filled * 9 / 8);
  constexpr int STARTS = LANES / L::BLOCKS;  // lanes of a block
  for (int64_t block = 0; block < filled / BLOCK; ++block) {
    alignas(64) int8_t rounded[BLOCK] = {};
    int32_t total = 0;
    scales[block] = block * BLOCK < columns ? round_block(x + block * BLOCK, rounded, total) : 0;
    if (FORMAT == Format::Q4_0) {
      int8_t* const to = values + block / L::BLOCKS * 2 * BYTES + block % L::BLOCKS * 16;
      std::memcpy(to, rounded, 16);
      std::memcpy(to + BYTES, rounded + 16, 16);
    } else {
      std::memcpy(values + block * BLOCK, rounded, BLOCK);
    }
    std::memset(starts + block * STARTS, 0, STARTS * sizeof(int32_t));
    starts[block * STARTS] = start_of<FORMAT>(total);
  }
}

// Prefetches into the L2 cache, which holds the rows that are walked next and more.
inline void prefetch(const uint8_t* from) { __builtin_prefetch(from, 0, 2); }
inline void prefetch_scales(const uint8_t* row, int64_t blocks) {
  for (int64_t i = 0; i < blocks * SCALE_BYTES; i += 64) prefetch(row + i);
}

// Calls group(at, steps, weights_of, scales_of) for each group of N rows: weights_of(row, step) and scales_of(row) load its
// vectors. `next` are the rows that will follow. Where rows are skipped (JUMPS), the processor does not foresee the next
// ones, so each vector's place in them is prefetched; where none are, its own prefetching is better.
template <Format FORMAT, int N, bool JUMPS, typename Group>
inline __attribute__((always_inline)) void walk(const Matrix& matrix, const uint8_t* const* rows, const uint8_t* const* next,
    const Group& group) {
  using L = Layout<FORMAT>;
  const int64_t blocks = matrix.blocks(), scale_bytes = blocks * SCALE_BYTES;
  const int64_t whole = blocks / LANES;
  if (JUMPS)
    for (int row = 0; row < N; ++row) prefetch_scales(next[row], blocks);
  for (int64_t at = 0; at < whole; ++at) {
    const auto weights_of = [&](int row, int step) __attribute__((always_inline)) {
      const int64_t place = scale_bytes + (at * L::STEPS + step) * BYTES;
      if (JUMPS && (BYTES == 64 || step % 2 == 0)) prefetch(next[row] + place);
      return load_bytes(rows[row] + place);
    };
    group(at, L::STEPS, weights_of, [&](int row) { return load_scales(rows[row] + at * LANES * SCALE_BYTES); });
  }
  if (const int64_t left = blocks - whole * LANES; left > 0) {
    alignas(64) uint8_t values[N][L::STEPS * BYTES], scales[N][LANES * SCALE_BYTES];
    for (int row = 0; row < N; ++row) {
      std::memset(values[row], 0, sizeof(values[row]));
      std::memset(scales[row], 0, sizeof(scales[row]));
      std::memcpy(values[row], rows[row] + scale_bytes + whole * LANES * value_bytes(FORMAT), left * value_bytes(FORMAT));
      std::memcpy(scales[row], rows[row] + whole * LANES * SCALE_BYTES, left * SCALE_BYTES);
    }
    group(whole, static_cast<int>((left + L::BLOCKS - 1) / L::BLOCKS),
        [&](int row, int step) { return load_bytes(values[row] + step * BYTES); },
        [&](int row) { return load_scales(scales[row]); });
  }
}

// outputs[b][..] of N rows.
template <Format FORMAT, int N, int BATCH, bool JUMPS>
inline __attribute__((always_inline)) void dot_rows(const Matrix& matrix, const uint8_t* const* rows,
    const uint8_t* const* next, const Input* inputs, float (*dots)[BATCH]) {
  using L = Layout<FORMAT>;
  Floats totals[N][BATCH];
  for (int row = 0; row < N; ++row)
    for (int b = 0; b < BATCH; ++b) totals[row][b] = zeros();
  walk<FORMAT, N, JUMPS>(matrix, rows, next, [&](int64_t at, int steps, const auto& weights_of, const auto& scales_of)
      __attribute__((always_inline)) {
    Floats factors[N][BATCH];
    for (int row = 0; row < N; ++row) {
      const Floats scale = scales_of(row);
      for (int b = 0; b < BATCH; ++b) factors[row][b] = scale * load_floats(inputs[b].scales + at * LANES);
    }
#pragma GCC unroll 8
    for (int step = 0; step < steps; ++step) {
      const int64_t place = at * L::STEPS + step;
      for (int row = 0; row < N; ++row) {
        const Weights<FORMAT> weights(weights_of(row, step));
        for (int b = 0; b < BATCH; ++b) {
          const Bytes product = weights.dot(inputs[b].values + place * L::INPUTS * BYTES, inputs[b].starts + place * LANES);
          totals[row][b] = multiply_add(to_floats(product), spread<L::BLOCKS>(factors[row][b], step), totals[row][b]);
        }
      }
    }
  });
  for (int row = 0; row < N; ++row)
    for (int b = 0; b < BATCH; ++b) dots[row][b] = sum(totals[row][b]);
}

// Rows [first, last), N at a time and the rest by decreasing powers of two. Rows walked together are far apart.
template <Format FORMAT, int N, int BATCH, bool JUMPS>
void dot_range(const Matrix& matrix, const Input* inputs, const int32_t* rows, int64_t first, int64_t last,
    float* const* outputs) {
  const int64_t steps = (last - first) / N;
  const auto row_at = [&](int64_t position) { return matrix.row(rows == nullptr ? position : rows[position]); };
  for (int64_t i = 0; i < steps; ++i) {
    const uint8_t *walked[N], *next[N];
    for (int row = 0; row < N; ++row) {
      const int64_t position = first + row * steps + i;
      walked[row] = row_at(position);
      next[row] = row_at(std::min(position + 1, last - 1));
    }
    float dots[N][BATCH];
    dot_rows<FORMAT, N, BATCH, JUMPS>(matrix, walked, next, inputs, dots);
    for (int row = 0; row < N; ++row)
      for (int b = 0; b < BATCH; ++b) outputs[b][first + row * steps + i] = dots[row][b];
  }
  if constexpr (N > 1) dot_range<FORMAT, N / 2, BATCH, JUMPS>(matrix, inputs, rows, first + N * steps, last, outputs);
}

template <Format FORMAT>
void dot(const Matrix& matrix, const uint8_t* const* buffers, int64_t batch, const int32_t* rows, int64_t first,
    int64_t last, float* const* outputs) {
  Input inputs[MAX_BATCH];
  for (int64_t b = 0; b < batch; ++b) inputs[b] = input_at(buffers[b], matrix.columns);
  const auto range = [&](auto jumps) {
    constexpr bool JUMPS = decltype(jumps)::value;
    int64_t b = 0;
    // a token's result does not depend on how many others are computed with it
    for (; b + 4 <= batch; b += 4) dot_range<FORMAT, 2, 4, JUMPS>(matrix, inputs + b, rows, first, last, outputs + b);
    for (; b + 2 <= batch; b += 2) dot_range<FORMAT, 4, 2, JUMPS>(matrix, inputs + b, rows, first, last, outputs + b);
    constexpr int N = JUMPS ? ROWS : ROWS / 2;
    for (; b < batch; ++b) dot_range<FORMAT, N, 1, JUMPS>(matrix, inputs + b, rows, first, last, outputs + b);
  };
  const bool adjacent = rows == nullptr && matrix.stride == matrix.blocks() * (SCALE_BYTES + value_bytes(FORMAT));
  if (adjacent) return range(std::false_type());
  range(std::true_type());
}

inline float largest_scale(const Matrix& matrix, int64_t row) {
  const uint8_t* const scales = matrix.row(row);
  const int64_t blocks = matrix.blocks(), whole = blocks / LANES * LANES;
  Bytes largest = all_words(0);  // magnitudes of floats are ordered as integers, with NaN above infinity
  for (int64_t at = 0; at < whole; at += LANES) largest = larger(largest, magnitudes(load_scales(scales + at * SCALE_BYTES)));
  if (whole < blocks) {
    uint8_t rest[LANES * SCALE_BYTES] = {};
    std::memcpy(rest, scales + whole * SCALE_BYTES, (blocks - whole) * SCALE_BYTES);
    largest = larger(largest, magnitudes(load_scales(rest)));
  }
  alignas(64) int32_t all[LANES];
  store_bytes(all, largest);
  const int32_t bits = std::min(*std::max_element(all, all + LANES), 0x7f800000);
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Adds the products of two rows' integers, given side by side in words, with their factors.
template <Format FORMAT>
inline void add_products(Bytes first, Bytes second, Bytes factors, Bytes* totals) {
  const Bytes halves[2] = {interleave_low(first, second), interleave_high(first, second)};
  for (const Bytes both : halves) {
    if (FORMAT == Format::Q4_0) {
      for (int part = 0; part < 4; ++part, ++totals)
        *totals = add_word_products(*totals, Bytes((UnsignedWords(both) >> 4 * part) & 15), factors);
    } else {
      for (int part = 0; part < 2; ++part, ++totals)
        *totals = add_word_products(*totals, Bytes((Words(both) << 8 * (1 - part)) >> 8), factors);
    }
  }
}

// Adds PAIRS pairs of rows to the 32-bit sums: the pairs' words side by side are multiplied by their two factors.
template <Format FORMAT, int PAIRS>
inline __attribute__((always_inline)) void add_pairs(const Matrix& matrix, const uint8_t* const* rows,
    const uint8_t* const* next, const float* factors, int32_t* sums, int32_t* shifts) {
  using L = Layout<FORMAT>;
  walk<FORMAT, 2 * PAIRS, true>(matrix, rows, next, [&](int64_t at, int steps, const auto& weights_of, const auto& scales_of)
      __attribute__((always_inline)) {
    Bytes both[PAIRS];  // of each block: the first row's factor in the low word, the second's in the high word
    for (int pair = 0; pair < PAIRS; ++pair)
      both[pair] = words_of(round_to_integers(scales_of(2 * pair) * all_floats(factors[2 * pair])),
          round_to_integers(scales_of(2 * pair + 1) * all_floats(factors[2 * pair + 1])));
#pragma GCC unroll 8
    for (int step = 0; step < steps; ++step) {
      const int64_t place = at * L::STEPS + step;
      int32_t* const own = sums + place * L::SUMS * LANES;
      Bytes totals[L::SUMS];
      for (int i = 0; i < L::SUMS; ++i) totals[i] = load_bytes(own + i * LANES);
      Bytes shift = FORMAT == Format::Q4_0 ? load_bytes(shifts + place * LANES) : Bytes{};
      for (int pair = 0; pair < PAIRS; ++pair) {
        const Bytes factor = spread<L::BLOCKS>(both[pair], step);
        add_products<FORMAT>(weights_of(2 * pair, step), weights_of(2 * pair + 1, step), factor, totals);
        if (FORMAT == Format::Q4_0) shift = add_word_products(shift, factor, all_words(8));
      }
      for (int i = 0; i < L::SUMS; ++i) store_bytes(own + i * LANES, totals[i]);
      if (FORMAT == Format::Q4_0) store_bytes(shifts + place * LANES, shift);
    }
  });
}

// The parts of a sum: 32-bit sums and what to subtract from them, and 64-bit totals.
inline int32_t* sums_of(uint8_t* buffer) { return reinterpret_cast<int32_t*>(buffer); }
inline int32_t* shifts_of(uint8_t* buffer, int64_t columns) { return sums_of(buffer) + filled_up(columns); }
template <typename Byte>
inline auto totals_of(Byte* buffer, int64_t columns) {
  using Total = std::conditional_t<std::is_const_v<Byte>, const int64_t, int64_t>;
  return reinterpret_cast<Total*>(buffer + filled_up(columns) * 9 / 2);
}

template <Format FORMAT>
void add(const Matrix& matrix, const int32_t* rows, const float* factors, int64_t count, uint8_t* buffer) {
  int32_t *const sums = sums_of(buffer), *const shifts = shifts_of(buffer, matrix.columns);
  const auto pairs = [&](auto each, int64_t begin) {
    constexpr int N = decltype(each)::value;
    const uint8_t *walked[2 * N], *next[2 * N];
    float own[2 * N];
    for (int row = 0; row < 2 * N; ++row) {
      walked[row] = matrix.row(rows[std::min(begin + row, count - 1)]);
      next[row] = matrix.row(rows[std::min(begin + 2 * N + row, count - 1)]);
      own[row] = begin + row < count ? factors[begin + row] : 0;
    }
    add_pairs<FORMAT, N>(matrix, walked, next, own, sums, shifts);
  };
  int64_t i = 0;
  for (; i + 2 * PAIRS <= count; i += 2 * PAIRS) pairs(std::integral_constant<int, PAIRS>(), i);
  for (; i < count; i += 2) pairs(std::integral_constant<int, 1>(), i);
}

template <Format FORMAT>
void flush(int64_t columns, uint8_t* buffer) {
  using L = Layout<FORMAT>;
  const int32_t *own = sums_of(buffer), *shift = shifts_of(buffer, columns);
  int64_t* total = totals_of(buffer, columns);
  for (int64_t step = 0; step < filled_up(columns) / L::COLUMNS; ++step, shift += LANES) {
    for (int vector = 0; vector < L::SUMS; ++vector, own += LANES, total += LANES) {
      for (int lane = 0; lane < LANES; ++lane) {
        total[lane] += own[lane];
        if (FORMAT == Format::Q4_0) total[lane] -= shift[lane];
      }
    }
  }
  std::memset(buffer, 0, filled_up(columns) * 9 / 2);
}

// The column of a 32-bit sum inside its step: two rows' words were interleaved within each 16 bytes.
template <Format FORMAT>
constexpr int column_of(int vector, int lane) {
  constexpr int PARTS = Layout<FORMAT>::SUMS / 2;
  const int word = vector / PARTS * 4 + lane % 4, part = vector % PARTS;
  if (FORMAT == Format::Q4_0) return lane / 4 * BLOCK + 2 * word + part / 2 + 16 * (part % 2);
  return lane / 4 * 16 + 2 * word + part;
}

template <Format FORMAT>
void read(const uint8_t* const* buffers, int64_t columns, int64_t count, double unit, int64_t first, int64_t last,
    float* output) {
  using L = Layout<FORMAT>;
  constexpr int SIZE = L::SUMS * LANES;
  for (int64_t begin = first; begin < last; begin += L::COLUMNS) {
    alignas(64) int64_t totals[SIZE];
    alignas(64) float found[SIZE], values[L::COLUMNS];
    std::memcpy(totals, totals_of(buffers[0], columns) + begin / L::COLUMNS * SIZE, sizeof(totals));
    for (int64_t i = 1; i < count; ++i) {
      const int64_t* const more = totals_of(buffers[i], columns) + begin / L::COLUMNS * SIZE;
      for (int j = 0; j < SIZE; ++j) totals[j] += more[j];
    }
    for (int j = 0; j < SIZE; ++j) found[j] = static_cast<float>(static_cast<double>(totals[j]) * unit);
    for (int vector = 0; vector < L::SUMS; ++vector)
      for (int lane = 0; lane < LANES; ++lane) values[column_of<FORMAT>(vector, lane)] = found[vector * LANES + lane];
    std::memcpy(output + begin, values, std::min<int64_t>(L::COLUMNS, last - begin) * sizeof(float));
  }
}

// Lists the rows that any token's value chooses, in ascending order, and returns their number.
inline int64_t select(const float* values, int64_t batch, int64_t size, Choice choice, float threshold, int32_t* list) {
  const int32_t* const begin = list;
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) {
    uint32_t bits = 0;
    for (int64_t b = 0; b < batch; ++b) bits |= chosen(load_floats(values + b * size + i), choice, threshold);
    for (; bits != 0; bits &= bits - 1) *list++ = static_cast<int32_t>(i + __builtin_ctz(bits));
  }
  for (; i < size; ++i) {
    bool any = false;
    for (int64_t b = 0; b < batch; ++b) any |= is_chosen(values[b * size + i], choice, threshold);
    if (any) *list++ = static_cast<int32_t>(i);
  }
  return list - begin;
}
