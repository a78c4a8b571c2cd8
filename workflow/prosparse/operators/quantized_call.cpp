// A call of the CPU operators whose weights are in Q8_0 or Q4_0: threads and the steps around the kernels of quantized.h.

#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu_call.h"
#include "quantized.h"

namespace prosparse {
namespace {

using c10::ScalarType;
using quantized::Choice;
using quantized::Format;
using quantized::kernels;
using quantized::Matrix;
using torch::stable::parallel_for;

// Wake a thread only for at least this many bytes, which take a few microseconds to read.
constexpr int64_t TASK_BYTES = 65536;
constexpr int64_t CHUNKS_PER_TASK = 8;  // threads are never equally fast
constexpr int64_t SCALES_AHEAD = 8;  // rows whose scales are prefetched

int64_t tasks_for(int64_t bytes) { return std::clamp<int64_t>(bytes / TASK_BYTES, 1, torch::stable::get_num_threads()); }
int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Memory that is aligned for vectors, and kept from call to call.
class Buffer {
 public:
  uint8_t* reserve(int64_t bytes) {
    if (bytes > size_) {
      size_ = aligned(bytes);
      memory_.reset(static_cast<uint8_t*>(std::aligned_alloc(64, size_)));
      TORCH_CHECK(memory_ != nullptr, "out of memory: ", size_, " bytes");
    }
    return memory_.get();
  }
  float* floats(int64_t count) { return reinterpret_cast<float*>(reserve(count * 4)); }
  int32_t* integers(int64_t count) { return reinterpret_cast<int32_t*>(reserve(count * 4)); }

 private:
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t, Free> memory_;
  int64_t size_ = 0;
};

template <typename T>
void widen(const void* from, int64_t stride, int64_t rows, int64_t columns, float* to) {
  for (int64_t b = 0; b < rows; ++b)
    for (int64_t i = 0; i < columns; ++i) to[b * columns + i] = static_cast<float>(static_cast<const T*>(from)[b * stride + i]);
}

// One call, for values and outputs of type T.
template <typename T>
class Run {
 public:
  Run(const Call& call, Format format)
      : call(call), up{format, call.up_columns, call.up_stride, static_cast<const uint8_t*>(call.up_weight)},
        down{format, call.down_columns, call.down_stride, static_cast<const uint8_t*>(call.down_weight)},
        threshold(static_cast<float>(static_cast<T>(call.threshold))), batch(call.batch), size(call.intermediate_size) {}

  void operator()() {
    if (call.values_are != NONE) widen<T>(call.values, call.values_stride, batch, size, value_buffer.floats(batch * size));
    values = value_buffer.floats(0);
    count = size;
    if (!call.every) select();
    float* const x1 = x1_buffer.floats(batch * count);
    std::vector<float> largest;  // of each task and token: |x1 * scale of the row of W_2|
    if (call.has_up) {
      multiply(x1, largest);
    } else {
      copy_values(x1, largest);
    }
    if (call.has_down) add_up(x1, largest);
  }

 private:
  const Call& call;
  const Matrix up, down;
  const float threshold;
  const int64_t batch, size;
  const float* values = nullptr;  // [batch, size]
  const int32_t* list = nullptr;  // rows to read; null for all
  int64_t count = 0;

  static inline thread_local Buffer value_buffer, list_buffer, x_buffer, input_buffer, x1_buffer, sums_buffer, output_buffer;

  int64_t row(int64_t position) const { return list == nullptr ? position : list[position]; }
  int64_t tasks(const Matrix& matrix) const {
    return tasks_for(count * matrix.blocks() * (quantized::value_bytes(matrix.format) + quantized::SCALE_BYTES));
  }

  Choice choice() const {
    return call.values_are == SCORES ? Choice::REACHED : call.values_are == GATES ? Choice::REACHED_NOT_ZERO : Choice::NOT_ZERO;
  }
  bool is_active(float value) const { return call.values_are == NONE || quantized::is_chosen(value, choice(), threshold); }

  void select() {
    int32_t* const found = list_buffer.integers(size);
    count = kernels().select(values, batch, size, choice(), threshold, found);
    list = found;
  }

  // Calls work(task, first, last) for chunks of positions until all are done.
  template <typename Work>
  void in_chunks(int64_t tasks, int64_t multiple, const Work& work) const {
    const int64_t chunks = tasks == 1 ? 1 : tasks * CHUNKS_PER_TASK;
    const int64_t step = std::max<int64_t>(multiple, ((count + chunks - 1) / chunks + multiple - 1) / multiple * multiple);
    std::atomic<int64_t> next = 0;
    parallel_for(0, tasks, 1, [&](int64_t task, int64_t) {
      for (int64_t first; (first = next.fetch_add(step, std::memory_order_relaxed)) < count;)
        work(task, first, std::min(first + step, count));
    });
  }

  // Step (2): a row's product with x, as its value has it.
  void multiply(float* x1, std::vector<float>& largest) {
    float* const x = x_buffer.floats(batch * up.columns);
    widen<T>(call.x, call.x_stride, batch, up.columns, x);
    const int64_t bytes = aligned(quantized::input_bytes(up.columns));
    uint8_t* const memory = input_buffer.reserve(batch * bytes);
    const uint8_t* inputs[quantized::MAX_BATCH];
    float* outputs[quantized::MAX_BATCH];
    for (int64_t b = 0; b < batch; ++b) {
      kernels().round_input(up.format, x + b * up.columns, up.columns, memory + b * bytes);
      inputs[b] = memory + b * bytes;
      outputs[b] = x1 + b * count;
    }
    if (!call.has_down && list != nullptr) std::memset(call.output, 0, batch * size * sizeof(T));
    const int64_t wanted = tasks(up);
    largest.assign(wanted * batch, 0);
    in_chunks(wanted, 4, [&](int64_t task, int64_t first, int64_t last) {
      kernels().dot(up, inputs, batch, list, first, last, outputs);
      for (int64_t b = 0; b < batch; ++b) {
        for (int64_t i = first; i < last; ++i) {
          float& product = outputs[b][i];
          if (call.values_are != NONE) {
            const float value = values[b * size + row(i)];
            if (call.relu_up && product < 0) product = 0;
            product = !is_active(value) ? 0 : call.values_are == GATES ? value * product : product;
          }
          if (!call.has_down) static_cast<T*>(call.output)[b * size + row(i)] = static_cast<T>(product);
        }
      }
      if (call.has_down) find_largest(x1, first, last, largest.data() + task * batch);
    });
  }

  void copy_values(float* x1, std::vector<float>& largest) {
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t i = 0; i < count; ++i) x1[b * count + i] = values[b * size + row(i)];
    const int64_t wanted = tasks(down);
    largest.assign(wanted * batch, 0);
    in_chunks(wanted, 8, [&](int64_t task, int64_t first, int64_t last) {
      find_largest(x1, first, last, largest.data() + task * batch);
    });
  }

  // NaN where a product is not finite.
  void find_largest(const float* x1, int64_t first, int64_t last, float* largest) const {
    const auto counts = [&](int64_t i) {
      bool any = false;
      for (int64_t b = 0; b < batch; ++b) any |= x1[b * count + i] != 0;
      return any;
    };
    const float* const known = call.largest_scales;
    const auto prefetch = [&](int64_t i) {
      if (known != nullptr || i >= last || !counts(i)) return;
      const uint8_t* const scales = down.row(row(i));
      for (int64_t at = 0; at < down.blocks() * quantized::SCALE_BYTES; at += 64) __builtin_prefetch(scales + at);
    };
    for (int64_t i = first; i < first + SCALES_AHEAD; ++i) prefetch(i);
    for (int64_t i = first; i < last; ++i) {
      prefetch(i + SCALES_AHEAD);
      if (!counts(i)) continue;
      const float scale = known != nullptr ? known[row(i)] : kernels().largest_scale(down, row(i));
      for (int64_t b = 0; b < batch; ++b) {
        const float product = std::fabs(x1[b * count + i]) * scale;
        largest[b] = std::isfinite(product) ? (product > largest[b] ? product : largest[b]) : NAN;
      }
    }
  }

  // Step (3): the sum of rows times x1.
  void add_up(const float* x1, const std::vector<float>& largest) {
    const int64_t wanted = tasks(down), columns = down.columns, most = quantized::rows_before_flush(down.format);
    float units[quantized::MAX_BATCH];
    for (int64_t b = 0; b < batch; ++b) {
      float all = 0;
      for (size_t i = b; i < largest.size(); i += batch) all = largest[i] <= all || std::isnan(all) ? all : largest[i];
      units[b] = quantized::unit_of(all);
    }
    const int64_t bytes = aligned(quantized::sum_bytes(columns));
    uint8_t* const sums = sums_buffer.reserve(wanted * batch * bytes);
    std::memset(sums, 0, wanted * batch * bytes);
    std::vector<int64_t> held(wanted * batch);
    in_chunks(wanted, 8, [&](int64_t task, int64_t first, int64_t last) {
      static thread_local std::vector<int32_t> rows;
      static thread_local std::vector<float> factors;
      for (int64_t b = 0; b < batch; ++b) {
        if (!(units[b] > 0)) continue;
        uint8_t* const own = sums + (task * batch + b) * bytes;
        int64_t& unflushed = held[task * batch + b];
        for (int64_t begin = first; begin < last; begin += most) {
          rows.clear();
          factors.clear();
          for (int64_t i = begin; i < std::min(begin + most, last); ++i) {
            if (x1[b * count + i] == 0 && !call.every) continue;
            rows.push_back(static_cast<int32_t>(row(i)));
            factors.push_back(x1[b * count + i] / units[b]);
          }
          const int64_t added = static_cast<int64_t>(rows.size());
          if (unflushed + added > most) {
            kernels().flush(down.format, columns, own);
            unflushed = 0;
          }
          kernels().add(down, rows.data(), factors.data(), added, own);
          unflushed += added;
        }
      }
    });
    float* const output = output_buffer.floats(batch * columns);
    parallel_for(0, wanted * batch, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) kernels().flush(down.format, columns, sums + i * bytes);
    });
    for (int64_t b = 0; b < batch; ++b) {
      std::vector<const uint8_t*> own;
      for (int64_t task = 0; task < wanted; ++task) own.push_back(sums + (task * batch + b) * bytes);
      float* const values = output + b * columns;
      if (std::isnan(units[b])) {
        std::fill_n(values, columns, NAN);
      } else {
        kernels().read(down.format, own.data(), columns, wanted, units[b], 0, columns, values);
      }
      for (int64_t j = 0; j < columns; ++j) static_cast<T*>(call.output)[b * columns + j] = static_cast<T>(values[j]);
    }
  }
};

}  // namespace

void run_quantized(const Call& call, ScalarType type, ScalarType weights) {
  const Format format = weights == ScalarType::Char ? Format::Q8_0 : Format::Q4_0;
  switch (type) {
    case ScalarType::BFloat16: return Run<c10::BFloat16>(call, format)();
    case ScalarType::Half: return Run<c10::Half>(call, format)();
    default: return Run<float>(call, format)();
  }
}

}  // namespace prosparse
