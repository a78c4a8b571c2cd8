// Which instruction set the CPU operators use.
#pragma once

#include <cstdlib>
#include <string>

enum class InstructionSet { BASELINE, AVX2, AVX512, AVX512_VNNI };

// The machine's best instruction set, or the lower one that ATEN_CPU_CAPABILITY asks of torch too.
inline InstructionSet instruction_set() {
  static const InstructionSet chosen = [] {
    const char* setting = std::getenv("ATEN_CPU_CAPABILITY");
    const std::string most = setting == nullptr ? "" : setting;
#if defined(__x86_64__)
    if (most == "default") return InstructionSet::BASELINE;
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
        __builtin_cpu_supports("bmi");
    if (avx512 && avx2 && most != "avx2")
      return __builtin_cpu_supports("avx512vnni") ? InstructionSet::AVX512_VNNI : InstructionSet::AVX512;
    if (avx2) return InstructionSet::AVX2;
#endif
    return InstructionSet::BASELINE;
  }();
  return chosen;
}
