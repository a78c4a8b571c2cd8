// Reading memory and nothing else, in several ways, of which the fastest is the limit that kernels are judged by.

#include <ATen/core/Tensor.h>
#include <torch/csrc/stable/ops.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace {

typedef uint64_t Line __attribute__((vector_size(64), aligned(1), may_alias));

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_INSTRUCTION_SET __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_INSTRUCTION_SET
#endif

// Reads `bytes`, a multiple of 64, as `streams` neighbouring parts side by side, each prefetched `ahead` bytes.
FOR_EACH_INSTRUCTION_SET
uint64_t read(const char* from, int64_t bytes, int64_t streams, int64_t ahead) {
  Line mixed[4] = {};
  const int64_t part = bytes / streams / 256 * 256;
  for (int64_t at = 0; at < part; at += 256) {
    for (int64_t stream = 0; stream < streams; ++stream) {
      const char* const place = from + stream * part + at;
      if (ahead != 0)
        for (int line = 0; line < 4; ++line) __builtin_prefetch(place + ahead + 64 * line);
      for (int line = 0; line < 4; ++line) mixed[line] ^= *reinterpret_cast<const Line*>(place + 64 * line);
    }
  }
  for (int64_t at = streams * part; at < bytes; at += 64) mixed[0] ^= *reinterpret_cast<const Line*>(from + at);
  const Line all = mixed[0] ^ mixed[1] ^ mixed[2] ^ mixed[3];
  uint64_t found = 0;
  for (int i = 0; i < 8; ++i) found ^= all[i];
  return found;
}

// The exclusive or of all 64-bit words; threads take chunks until none is left.
int64_t read_memory(const at::Tensor& memory, int64_t streams, int64_t ahead) {
  constexpr int64_t CHUNK = 1 << 20;
  TORCH_CHECK_VALUE(memory.is_contiguous() && memory.nbytes() % 64 == 0, "memory must be contiguous, a multiple of 64 bytes");
  TORCH_CHECK_VALUE(streams >= 1 && ahead >= 0, "streams must be at least 1, ahead at least 0");
  const char* const from = static_cast<const char*>(memory.const_data_ptr());
  const int64_t bytes = static_cast<int64_t>(memory.nbytes());
  std::atomic<int64_t> next = 0;
  std::atomic<uint64_t> all = 0;
  torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t at; (at = next.fetch_add(CHUNK)) < bytes;) all ^= read(from + at, std::min(CHUNK, bytes - at), streams, ahead);
  });
  return static_cast<int64_t>(all.load());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(prosparse, library) {
  library.def("read_memory(Tensor memory, int streams, int ahead) -> int");
}

TORCH_LIBRARY_IMPL(prosparse, CPU, library) { library.impl("read_memory", &read_memory); }
