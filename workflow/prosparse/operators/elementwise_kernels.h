// The elementwise kernels for one instruction set; cpu.cpp includes this file after cpu_kernels.h.

inline void store_in_order(BFloat16* to, Floats values) {
  *reinterpret_cast<AnyShorts*>(to) = __builtin_convertvector(bfloat16_bits(values), Shorts);
}
inline void store_in_order(Half* to, Floats values) { floats_to_halves(values, to); }
inline void store_in_order(float* to, Floats values) { *reinterpret_cast<AnyFloats*>(to) = values; }

template <typename T>
inline Floats rounded(Floats values) {
  if constexpr (std::is_same_v<T, float>) return values;
  T held[WIDTH];
  store_in_order(held, values);
  return in_order(held);
}
template <>
inline Floats rounded<BFloat16>(Floats values) { return (Floats)(bfloat16_bits(values) << 16); }

// Calls each(position, load, store) for every vector of an array of `count` values; the last may be incomplete: it is
// filled with zeros.
template <typename T, typename Each>
inline __attribute__((always_inline)) void for_vectors(int64_t count, const Each& each) {
  int64_t i = 0;
  for (; i + WIDTH <= count; i += WIDTH)
    each(i, [&](const auto* from) { return in_order(from + i); }, [&](T* to, Floats values) { store_in_order(to + i, values); });
  if (i == count) return;
  const int64_t rest = count - i;
  const auto load = [&](const auto* from) {
    std::remove_const_t<std::remove_pointer_t<decltype(from)>> filled[WIDTH] = {};
    std::memcpy(static_cast<void*>(filled), from + i, rest * sizeof(*from));
    return in_order(filled);
  };
  const auto store = [&](T* to, Floats values) {
    T filled[WIDTH];
    store_in_order(filled, values);
    std::memcpy(static_cast<void*>(to + i), filled, rest * sizeof(T));
  };
  each(i, load, store);
}

template <typename T>
void normalize(const Norm& norm, const T* x, T* output) {
  float mean = 0;
  if (norm.centred) {
    Floats sums = {};
    for_vectors<T>(norm.size, [&](int64_t, const auto& load, const auto&) { sums += load(x); });
    mean = sum(sums) / norm.size;
  }
  Floats squares = {};
  for_vectors<T>(norm.size, [&](int64_t, const auto& load, const auto&) {
    const Floats value = load(x) - mean;
    squares += value * value;
  });
  // the zeros that fill the last vector are not part of x
  const int64_t padding = (WIDTH - norm.size % WIDTH) % WIDTH;
  const float factor = 1 / std::sqrt((sum(squares) - padding * mean * mean) / norm.size + norm.epsilon);
  const T *weight = static_cast<const T*>(norm.weight), *bias = static_cast<const T*>(norm.bias);
  for_vectors<T>(norm.size, [&](int64_t, const auto& load, const auto& store) {
    Floats value = (load(x) - mean) * factor;
    if (norm.narrow) value = rounded<T>(value);
    if (weight != nullptr) value *= load(weight) + norm.offset;
    if (bias != nullptr) value += load(bias);
    store(output, value);
  });
}

template <typename T>
void rotate(const Rotary& rotary, T* x, int64_t heads, int64_t head_size) {
  const int64_t half = rotary.size / 2;
  const auto turned = [&](Floats value, Floats cosine, Floats other, Floats sine) {
    if (!rotary.narrow) return value * cosine + other * sine;
    return rounded<T>(value * cosine) + rounded<T>(other * sine);
  };
  for (int64_t head = 0; head < heads; ++head, x += head_size) {
    if (rotary.neighbours) {
      for (int64_t i = 0; i < half; ++i) {
        const float first = x[2 * i], second = x[2 * i + 1];
        const float* cosine = rotary.cosines + 2 * i;
        const float* sine = rotary.sines + 2 * i;
        const auto narrow = [&](float value) { return rotary.narrow ? static_cast<float>(static_cast<T>(value)) : value; };
        x[2 * i] = static_cast<T>(narrow(first * cosine[0]) + narrow(-second * sine[0]));
        x[2 * i + 1] = static_cast<T>(narrow(second * cosine[1]) + narrow(first * sine[1]));
      }
      continue;
    }
    for_vectors<T>(half, [&](int64_t, const auto& load, const auto& store) {
      const Floats first = load(x), second = load(x + half);
      store(x, turned(first, load(rotary.cosines), -second, load(rotary.sines)));
      store(x + half, turned(second, load(rotary.cosines + half), first, load(rotary.sines + half)));
    });
  }
}

template <typename T>
void add(T* total, const T* x, float factor, int64_t count) {
  for_vectors<T>(count, [&](int64_t, const auto& load, const auto& store) {
    store(total, load(total) + (factor == 1 ? load(x) : rounded<T>(load(x) * factor)));
  });
}

template <typename T>
void scale(T* x, float factor, int64_t count) {
  for_vectors<T>(count, [&](int64_t, const auto& load, const auto& store) { store(x, load(x) * factor); });
}

template <typename T>
void silu(T* x, const T* factors, int64_t count) {
  for_vectors<T>(count, [&](int64_t, const auto& load, const auto& store) {
    const Floats value = load(x);
    const Words negative = (Words)(value < 0.0f);
    const Floats power = exponential((Floats)((Words)value | 0x80000000u));  // e^-|x|
    const Floats share = (Floats)((negative & (Words)power) | (~negative & (Words)(Floats{} + 1.0f)));
    store(x, rounded<T>(value * share / (power + 1.0f)) * load(factors));
  });
}

template <typename T>
void shifted_relu(T* x, float shift, int64_t count) {
  for_vectors<T>(count, [&](int64_t, const auto& load, const auto& store) {
    const Floats value = load(x) - shift;
    store(x, (Floats)((Words)value & (Words)(value > 0.0f)));
  });
}

template <typename T>
void squared_relu(T* x, int64_t count) {
  for_vectors<T>(count, [&](int64_t, const auto& load, const auto& store) {
    const Floats value = load(x);
    store(x, (Floats)((Words)(value * value) & (Words)(value > 0.0f)));
  });
}

template <typename T>
constexpr Elementwise<T> ELEMENTWISE = {
    normalize<T>, rotate<T>, add<T>, scale<T>, silu<T>, shifted_relu<T>, squared_relu<T>};
