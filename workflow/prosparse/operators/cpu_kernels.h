// The CPU operators for one instruction set, with WIDTH floats per vector. cpu.cpp includes this file once per set, in
// a namespace that defines WIDTH, halves_to_floats, floats_to_halves and sign_bits.
//
// Memory bandwidth limits the speed, so everything serves a steady stream of reads: only active rows are read; each
// thread walks ROWS of them at once, since a single stream cannot keep enough cache lines in flight; and while it reads
// the end of a row, it prefetches the start of the next.
//
// A whole FFN sums over its neurons in ascending order, in chunks that depend only on the shape. A skipped neuron is
// then a zero that is not added, so sparse and dense results are bitwise equal, and a token's result does not depend on
// the other tokens of its batch.

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t Words __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Integers __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t Shorts __attribute__((vector_size(2 * WIDTH)));
typedef Floats AnyFloats __attribute__((aligned(1), may_alias));
typedef Words AnyWords __attribute__((aligned(1), may_alias));
typedef Shorts AnyShorts __attribute__((aligned(1), may_alias));

// Weights are loaded as pairs of vectors. Their type decides which weight goes into which vector: for bfloat16, a shift
// puts the even ones in the first and a mask the odd ones in the second. Inputs and accumulators use the same order.
struct Pair {
  Floats first, second;
};
constexpr int64_t PAIR = 2 * WIDTH;

inline Pair load(const BFloat16* from) {
  const Words words = *reinterpret_cast<const AnyWords*>(from);
  return {(Floats)(words << 16), (Floats)(words & 0xffff0000u)};
}

inline Pair load(const Half* from) {
  return {halves_to_floats(from), halves_to_floats(from + WIDTH)};
}

inline Pair load(const float* from) {
  return {*reinterpret_cast<const AnyFloats*>(from), *reinterpret_cast<const AnyFloats*>(from + WIDTH)};
}

// The upper half of a float, rounded to nearest even; NaN stays NaN.
inline Words bfloat16_bits(Floats value) {
  const Words bits = (Words)value;
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words nan = (Words)(value != value);
  return (nan & 0x7fc0u) | (~nan & rounded);
}

inline void store(BFloat16* to, Pair pair) {
  *reinterpret_cast<AnyWords*>(to) = bfloat16_bits(pair.first) | (bfloat16_bits(pair.second) << 16);
}

inline void store(Half* to, Pair pair) {
  floats_to_halves(pair.first, to);
  floats_to_halves(pair.second, to + WIDTH);
}

inline void store(float* to, Pair pair) {
  *reinterpret_cast<AnyFloats*>(to) = pair.first;
  *reinterpret_cast<AnyFloats*>(to + WIDTH) = pair.second;
}

// The incomplete pair at the end of a row, padded with zeros.
template <typename T>
inline Pair load_tail(const T* from, int64_t count) {
  T filled[PAIR] = {};
  std::memcpy(static_cast<void*>(filled), from, count * sizeof(T));
  return load(filled);
}

template <typename T>
inline void store_tail(T* to, Pair pair, int64_t count) {
  T filled[PAIR];
  store(filled, pair);
  std::memcpy(static_cast<void*>(to), filled, count * sizeof(T));
}

// Values in memory order, for comparisons.
inline Floats in_order(const BFloat16* from) {
  return (Floats)(__builtin_convertvector(*reinterpret_cast<const AnyShorts*>(from), Words) << 16);
}
inline Floats in_order(const Half* from) { return halves_to_floats(from); }
inline Floats in_order(const float* from) { return *reinterpret_cast<const AnyFloats*>(from); }

inline float sum(Floats values) {
  float total = 0;
  for (int i = 0; i < WIDTH; ++i) total += values[i];
  return total;
}

inline int64_t filled_up(int64_t columns) { return (columns + PAIR - 1) / PAIR * PAIR; }

template <typename T>
void widen(const T* from, int64_t columns, float* to) {
  const int64_t whole = columns / PAIR * PAIR;
  for (int64_t j = 0; j < whole; j += PAIR) store(to + j, load(from + j));
  if (whole < columns) store(to + whole, load_tail(from + whole, columns - whole));
}

// Rows of weights that are walked together, and the rows that follow them.
template <int ROWS, typename T>
struct Walk {
  const T* rows[ROWS];
  const T* next[ROWS];
};

// Columns between two prefetches: one cache line or one pair, whichever is larger.
template <typename T>
constexpr int64_t STEP = std::max<int64_t>(64 / sizeof(T), PAIR);

// Prefetch distance in columns, short enough that the lines stay in the L1 cache.
template <typename T>
constexpr int64_t AHEAD = 384 / sizeof(T);

// Calls read(column, load) for each pair of columns, where load(row) returns the weights there.
template <int ROWS, typename T, typename Read>
inline __attribute__((always_inline)) void walk(const Walk<ROWS, T>& path, int64_t columns, const Read& read) {
  const int64_t whole = columns / PAIR * PAIR, stepped = columns / STEP<T> * STEP<T>;
  const int64_t turn = std::clamp<int64_t>((columns - AHEAD<T>) / STEP<T> * STEP<T>, 0, stepped);
  int64_t j = 0;
  const auto step = [&] {
    for (int64_t k = j; k < j + STEP<T>; k += PAIR) read(k, [&](int row) { return load(path.rows[row] + k); });
  };
  for (; j < turn; j += STEP<T>) {
    for (int row = 0; row < ROWS; ++row) __builtin_prefetch(path.rows[row] + j + AHEAD<T>);
    step();
  }
  for (; j < stepped; j += STEP<T>) {
    for (int row = 0; row < ROWS; ++row) __builtin_prefetch(path.next[row] + (j - turn));
    step();
  }
  for (; j < whole; j += PAIR) read(j, [&](int row) { return load(path.rows[row] + j); });
  if (j < columns) read(j, [&](int row) { return load_tail(path.rows[row] + j, columns - j); });
}

// dots[row][b] = rows[row] . inputs[b], with the inputs `distance` floats apart.
template <int ROWS, int BATCH, typename T>
void dot(const Walk<ROWS, T>& path, const float* inputs, int64_t distance, int64_t columns, float (*dots)[BATCH]) {
  Floats totals[ROWS][BATCH] = {};
  walk(path, columns, [&](int64_t j, const auto& weights_of) {
    for (int row = 0; row < ROWS; ++row) {
      const Pair weights = weights_of(row);
      for (int b = 0; b < BATCH; ++b) {
        const Pair input = load(inputs + b * distance + j);
        totals[row][b] += weights.first * input.first;
        totals[row][b] += weights.second * input.second;
      }
    }
  });
  for (int row = 0; row < ROWS; ++row)
    for (int b = 0; b < BATCH; ++b) dots[row][b] = sum(totals[row][b]);
}

// total += factors . rows, one row after the other: how many are walked together does not change the result.
template <int ROWS, typename T>
void add_rows(const Walk<ROWS, T>& path, const float* factors, int64_t columns, float* total) {
  walk(path, columns, [&](int64_t j, const auto& weights_of) {
    Pair sums = load(total + j);
    for (int row = 0; row < ROWS; ++row) {
      const Pair weights = weights_of(row);
      sums.first += factors[row] * weights.first;
      sums.second += factors[row] * weights.second;
    }
    store(total + j, sums);
  });
}

// Lists the rows that any token of the batch needs, in ascending order, and returns their number.
template <typename T>
int64_t find_active(const Call& call, std::vector<int32_t>& active) {
  active.resize(std::max<size_t>(active.size(), call.intermediate_size));
  const T* values = static_cast<const T*>(call.values);
  int32_t* end = active.data();
  for (int64_t i = 0; i < call.intermediate_size; i += 64) {
    uint64_t bits = 0;
    for (int64_t j = i; j < std::min(i + 64, call.intermediate_size); j += WIDTH) {
      const int64_t count = std::min<int64_t>(WIDTH, call.intermediate_size - j);
      Words any = {};
      for (int64_t b = 0; b < call.batch; ++b) {
        const T* from = values + b * call.values_stride + j;
        T filled[WIDTH] = {};
        if (count < WIDTH) from = static_cast<T*>(std::memcpy(static_cast<void*>(filled), from, count * sizeof(T)));
        const Floats value = in_order(from);
        const Words reached = (Words)(value >= call.threshold), present = (Words)(value != 0.0f);
        any |= call.values_are == SCORES ? reached : call.values_are == GATES ? reached & present : present;
      }
      const uint32_t valid = (1u << count) - 1;  // the rest is zero padding, which may reach the threshold
      bits |= static_cast<uint64_t>(sign_bits(any) & valid) << (j - i);
    }
    for (; bits != 0; bits &= bits - 1) *end++ = static_cast<int32_t>(i + __builtin_ctzll(bits));
  }
  return end - active.data();
}

// A part of the rows to read, up to `end`: writes their output, or adds their product with W_2 to `total`.
template <typename T, int BATCH>
struct Share {
  // There is one accumulator per (row, token), and eight of them hide the latency of multiply-adds. Large batches use
  // more, since rows that are walked together also share the loads of the inputs; AVX-512 has the registers for 24.
  static constexpr int ROWS = BATCH <= 2 ? 8 / BATCH : BATCH == 4 || (BATCH < 8 && WIDTH == 16) ? 4 : 2;

  const Call& call;
  const int32_t* active;  // null if every row is read
  int64_t end;
  const float* inputs;
  float* total;

  int64_t neuron(int64_t position) const { return active == nullptr ? position : active[position]; }
  const T* up_row(int64_t neuron) const { return static_cast<const T*>(call.up_weight) + neuron * call.up_stride; }
  const T* down_row(int64_t neuron) const { return static_cast<const T*>(call.down_weight) + neuron * call.down_stride; }
  float value(int64_t b, int64_t neuron) const {
    return static_cast<float>(static_cast<const T*>(call.values)[b * call.values_stride + neuron]);
  }
  // Combines a neuron's value with its dot product with x.
  float product(float value, float dot) const {
    if (call.values_are == NONE) return dot;
    if (call.values_are == SCORES) return value >= call.threshold ? dot : 0;
    if (call.relu_up && dot < 0) dot = 0;
    return value >= call.threshold && value != 0 ? value * dot : 0;
  }
  // Adds the first `count` rows of a walk: N together if there are as many, the rest by decreasing powers of two.
  template <int N>
  void add_first(const T* const* rows, const T* const* next, const float* factors, int64_t count, float* sums) const {
    if (count >= N) {
      Walk<N, T> path;
      std::copy_n(rows, N, path.rows);
      std::copy_n(next, N, path.next);
      add_rows(path, factors, call.down_columns, sums);
      rows += N, next += N, factors += N, count -= N;
    }
    if constexpr (N > 1) add_first<N / 2>(rows, next, factors, count, sums);
  }

  // Processes N rows, `distance` positions apart; the same number from `next` on follow, equally spaced.
  template <int N>
  void rows(int64_t begin, int64_t distance, int64_t next) const {
    int64_t neurons[N], following[N];
    float x1[BATCH][N] = {};
    for (int row = 0; row < N; ++row) {
      neurons[row] = neuron(begin + row * distance);
      following[row] = neuron(std::min(next + row * distance, end - 1));
      if (call.values_are != NONE)
        for (int64_t b = 0; b < call.batch; ++b) x1[b][row] = value(b, neurons[row]);
    }
    Walk<N, T> path;
    if (call.has_up) {
      for (int row = 0; row < N; ++row) {
        path.rows[row] = up_row(neurons[row]);
        path.next[row] = call.has_down ? down_row(neurons[row]) : up_row(following[row]);
      }
      float dots[N][BATCH];
      dot<N, BATCH>(path, inputs, filled_up(call.up_columns), call.up_columns, dots);
      for (int row = 0; row < N; ++row)
        for (int64_t b = 0; b < call.batch; ++b) x1[b][row] = product(x1[b][row], dots[row][b]);
    }
    if (!call.has_down) {
      T* output = static_cast<T*>(call.output);
      for (int row = 0; row < N; ++row)
        for (int64_t b = 0; b < call.batch; ++b)
          output[b * call.intermediate_size + neurons[row]] = static_cast<T>(x1[b][row]);
      return;
    }
    for (int row = 0; row < N; ++row) {
      path.rows[row] = down_row(neurons[row]);
      path.next[row] = call.has_up ? up_row(following[row]) : down_row(following[row]);
    }
    for (int64_t b = 0; b < call.batch; ++b) {
      const T *kept[N], *next_kept[N];
      float factors[N];
      int64_t count = 0;
      for (int row = 0; row < N; ++row) {
        if (!call.every && x1[b][row] == 0) continue;  // zero times an infinite weight is NaN
        kept[count] = path.rows[row];
        next_kept[count] = path.next[row];
        factors[count++] = x1[b][row];
      }
      add_first<N>(kept, next_kept, factors, count, total + b * filled_up(call.down_columns));
    }
  }

  // Processes positions [begin, end), ROWS at a time and the rest by decreasing powers of two. Rows read together are
  // far apart, which is fastest, but adjacent in a whole FFN, to keep the order of its sums.
  template <int N = ROWS>
  void run(int64_t begin) const {
    const int64_t steps = (end - begin) / N;
    for (int64_t i = 0; i < steps; ++i) {
      if (call.has_up && call.has_down) {
        rows<N>(begin + i * N, 1, begin + (i + 1) * N);
      } else {
        rows<N>(begin + i, steps, begin + i + 1);
      }
    }
    if constexpr (N > 1) run<N / 2>(begin + N * steps);
  }
};

// Neurons in chunks: a large one per task, then small ones for the tasks that finish first, since threads are never
// equally fast.
struct Chunks {
  int64_t neurons, tasks, large, small;

  Chunks(int64_t neurons, int64_t tasks, int64_t small_per_task) : neurons(neurons), tasks(tasks) {
    large = tasks == 1 ? neurons : neurons * 3 / 4 / tasks / 8 * 8;
    small = (neurons - tasks * large) / (tasks * small_per_task) / 8 * 8 + 8;
  }
  int64_t count() const { return tasks + (neurons - tasks * large + small - 1) / small; }
  int64_t begin(int64_t chunk) const {
    return chunk <= tasks ? chunk * large : std::min(tasks * large + (chunk - tasks) * small, neurons);
  }
};

template <typename T, int BATCH>
void run_batch(const Call& call) {
  static thread_local std::vector<int32_t> active;
  static thread_local std::vector<float> inputs, totals;
  const int64_t count = call.every ? call.intermediate_size : find_active<T>(call, active);
  const int64_t width = filled_up(call.down_columns), row_bytes = (call.up_columns + call.down_columns) * sizeof(T);
  const int64_t tasks = tasks_for(count * row_bytes);
  // with step (3), each chunk has its own sums to add up, so fewer chunks are better
  const Chunks chunks(call.intermediate_size, tasks_for(call.intermediate_size * row_bytes), call.has_down ? 2 : 4);

  if (call.has_up) {
    inputs.assign(BATCH * filled_up(call.up_columns), 0.0f);
    for (int64_t b = 0; b < call.batch; ++b)
      widen(static_cast<const T*>(call.x) + b * call.x_stride, call.up_columns,
          inputs.data() + b * filled_up(call.up_columns));
  }
  if (call.has_down) {
    totals.resize(chunks.count() * call.batch * width);
  } else if (!call.every) {
    std::memset(call.output, 0, call.batch * call.intermediate_size * sizeof(T));
  }
  const int32_t* const list = call.every ? nullptr : active.data();
  const auto position = [&](int64_t neuron) { return list == nullptr ? neuron : std::lower_bound(list, list + count, neuron) - list; };
  const float* const widened = inputs.data();
  float* const sums = totals.data();
  std::atomic<int64_t> next = 0;
  parallel_for(0, tasks, 1, [&](int64_t, int64_t) {
    for (int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks.count();) {
      float* own = nullptr;
      if (call.has_down) {
        own = sums + chunk * call.batch * width;
        std::fill_n(own, call.batch * width, 0.0f);
      }
      Share<T, BATCH>{call, list, position(chunks.begin(chunk + 1)), widened, own}.run(position(chunks.begin(chunk)));
    }
  });
  if (!call.has_down) return;

  // Chunk sums are added in chunk order, regardless of the thread.
  const int64_t pairs = width / PAIR;
  const int64_t grain = std::max<int64_t>(1, 32768 / (PAIR * chunks.count() * call.batch));
  parallel_for(0, pairs, grain, [&](int64_t first, int64_t last) {
    for (int64_t b = 0; b < call.batch; ++b) {
      T* output = static_cast<T*>(call.output) + b * call.down_columns;
      for (int64_t j = first * PAIR; j < last * PAIR; j += PAIR) {
        Pair all = load(sums + b * width + j);
        for (int64_t chunk = 1; chunk < chunks.count(); ++chunk) {
          const Pair part = load(sums + (chunk * call.batch + b) * width + j);
          all.first += part.first;
          all.second += part.second;
        }
        if (j + PAIR <= call.down_columns) {
          store(output + j, all);
        } else {
          store_tail(output + j, all, call.down_columns - j);
        }
      }
    }
  });
}

template <typename T>
void run(const Call& call) {
  switch (call.batch) {
    case 1: return run_batch<T, 1>(call);
    case 2: return run_batch<T, 2>(call);
    case 3: case 4: return run_batch<T, 4>(call);
    case 5: return run_batch<T, 5>(call);  // short prompts are common, and wider batches are bound by arithmetic
    case 6: return run_batch<T, 6>(call);
    default: return run_batch<T, 8>(call);
  }
}

// e^x for x <= 0: 2^n times a polynomial in the remainder, with Cephes' coefficients; 0 below the least normal float.
inline Floats exponential(Floats x) {
  const Floats steps = x * 1.44269504f;
  const auto whole = __builtin_convertvector(steps - 0.5f, Integers);  // truncates, and so rounds to nearest
  const Floats n = __builtin_convertvector(whole, Floats);
  const Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const Words bits = (Words)y + ((Words)whole << 23);
  return (Floats)(bits & (Words)(x > -87.0f));
}

// Computes heads [first, last) of one token's attention over `length` keys and values.
template <typename T>
void attend(const Attention& call, int64_t first, int64_t last) {
  static thread_local std::vector<float> query, weights, total;
  const int64_t width = filled_up(call.head_size), length = call.length, filled = filled_up(length);
  query.resize(width);
  total.resize(width);
  weights.resize(filled);
  for (int64_t head = first; head < last; ++head) {
    const int64_t shared = head / (call.heads / call.kv_heads);
    const T* keys = static_cast<const T*>(call.keys) + shared * call.key_head_stride;
    const T* values = static_cast<const T*>(call.values) + shared * call.value_head_stride;
    widen(static_cast<const T*>(call.query) + head * call.query_stride, call.head_size, query.data());
    const auto rows = [&](const T* from, int64_t stride, auto each, int64_t begin) {
      constexpr int N = decltype(each)::value;
      Walk<N, T> path;
      for (int row = 0; row < N; ++row) {
        path.rows[row] = from + (begin + row) * stride;
        path.next[row] = from + std::min(begin + row + N, length - 1) * stride;
      }
      return path;
    };
    const auto score = [&](auto each, int64_t begin) {
      constexpr int N = decltype(each)::value;
      float dots[N][1];
      dot<N, 1>(rows(keys, call.key_stride, each, begin), query.data(), width, call.head_size, dots);
      for (int row = 0; row < N; ++row) weights[begin + row] = dots[row][0] * call.scale;
    };
    const auto sum_up = [&](auto each, int64_t begin) {
      constexpr int N = decltype(each)::value;
      add_rows<N>(rows(values, call.value_stride, each, begin), weights.data() + begin, call.head_size, total.data());
    };
    const auto in_eights = [&](const auto& step) {
      int64_t i = 0;
      for (; i + 8 <= length; i += 8) step(std::integral_constant<int, 8>(), i);
      for (; i < length; ++i) step(std::integral_constant<int, 1>(), i);
    };
    in_eights(score);
    const float most = *std::max_element(weights.begin(), weights.begin() + length);
    std::fill(weights.begin() + length, weights.begin() + filled, -INFINITY);
    Floats sums = {};
    for (int64_t i = 0; i < filled; i += WIDTH) {
      AnyFloats& part = *reinterpret_cast<AnyFloats*>(weights.data() + i);
      part = exponential(part - most);
      sums += part;
    }
    std::fill(total.begin(), total.end(), 0.0f);
    in_eights(sum_up);
    const float share = 1 / sum(sums);
    T* output = static_cast<T*>(call.output) + head * call.head_size;
    for (int64_t j = 0; j < width; j += PAIR) {
      Pair pair = load(total.data() + j);
      pair.first *= share;
      pair.second *= share;
      if (j + PAIR <= call.head_size) {
        store(output + j, pair);
      } else {
        store_tail(output + j, pair, call.head_size - j);
      }
    }
  }
}

// Only reads the listed rows: the baseline for the operators over these rows.
inline uint32_t read_rows(const char* weights, int64_t stride, int64_t bytes, const int64_t* rows, int64_t count) {
  constexpr int STREAMS = 8;
  const int64_t tasks = tasks_for(count * bytes);
  std::vector<uint32_t> checksums(tasks);
  parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t begin = count * task / tasks, end = count * (task + 1) / tasks, step = (end - begin) / STREAMS;
      Words mixed[STREAMS] = {};
      uint32_t rest = 0;
      const auto read = [&](int64_t position, int64_t from, int stream) {
        mixed[stream] ^= *reinterpret_cast<const AnyWords*>(weights + rows[position] * stride + from);
      };
      constexpr int64_t VECTOR = sizeof(Words);
      const int64_t whole = bytes / VECTOR * VECTOR;
      for (int64_t i = begin; i < begin + step; ++i)
        for (int64_t from = 0; from < whole; from += VECTOR)
          for (int stream = 0; stream < STREAMS; ++stream) read(i + stream * step, from, stream);
      for (int64_t i = begin + STREAMS * step; i < end; ++i)
        for (int64_t from = 0; from < whole; from += VECTOR) read(i, from, 0);
      for (int64_t i = begin; i < end; ++i)
        for (int64_t from = whole; from < bytes; ++from) rest ^= static_cast<uint8_t>(weights[rows[i] * stride + from]);
      for (int stream = 0; stream < STREAMS; ++stream)
        for (int lane = 0; lane < WIDTH; ++lane) rest ^= mixed[stream][lane];
      checksums[task] = rest;
    }
  });
  uint32_t all = 0;
  for (const uint32_t checksum : checksums) all ^= checksum;
  return all;
}
