// A decoder that computes one token in one call: torch.classes.prosparse.Decoder. layers.py describes a model's layers.
//
// Every value is rounded to the weights' type where transformers' own modules round it.

#include "cpu_call.h"
#include "elementwise.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace prosparse {
namespace {

using at::ScalarType;
using at::Tensor;

enum class Mode : int64_t { DENSE, EXACT, PREDICTED, NOTHING };  // the last skips all products, to measure the rest
enum class Activation : int64_t { SILU, FATRELU, SHIFTED_RELU, SQUARED_RELU };

// What Python describes: tensors and numbers by name.
class Description {
 public:
  using Tensors = c10::Dict<std::string, Tensor>;
  using Numbers = c10::Dict<std::string, double>;

  Description(Tensors tensors, Numbers numbers) : tensors_(std::move(tensors)), numbers_(std::move(numbers)) {}
  Tensor tensor(const std::string& name) const { return tensors_.contains(name) ? tensors_.at(name) : Tensor(); }
  double number(const std::string& name, double missing = 0) const {
    return numbers_.contains(name) ? numbers_.at(name) : missing;
  }
  Tensor weight(const std::string& name, ScalarType type) const {
    const Tensor found = tensor(name);
    TORCH_CHECK_VALUE(found.defined(), name, " is missing");
    TORCH_CHECK_VALUE(found.dim() == 2 && found.stride(1) == 1, name, " must be a matrix with contiguous rows");
    TORCH_CHECK_VALUE(found.scalar_type() == type || is_packed(found.scalar_type()), name,
        " must have the embedding's dtype, or be in Q8_0 or Q4_0");
    return found;
  }
  Tensor vector(const std::string& name, ScalarType type, int64_t size) const {
    const Tensor found = tensor(name);
    TORCH_CHECK_VALUE(!found.defined() || (found.is_contiguous() && found.numel() == size && found.scalar_type() == type),
        name, " must be contiguous, with ", size, " values of dtype ", type);
    return found;
  }

 private:
  Tensors tensors_;
  Numbers numbers_;
};

int64_t columns(const Tensor& weight) { return columns_in(weight.scalar_type(), weight.size(1)); }

const void* data(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

// Runs a call on values of type T, or leaves its output 0 in mode NOTHING.
template <typename T>
void compute(Mode mode, const Call& call, const Tensor& weight) {
  const ScalarType type = c10::CppTypeToScalarType<T>::value;
  if (mode == Mode::NOTHING) {
    std::memset(call.output, 0, (call.has_down ? call.down_columns : call.intermediate_size) * sizeof(T));
  } else if (is_packed(weight.scalar_type())) {
    run_quantized(call, type, weight.scalar_type());
  } else {
    run(call, type);
  }
}

// The rows of a call's step (2), or of a linear layer, and their input.
void set_up(Call& call, const Tensor& weight, const void* x) {
  call.has_up = true;
  call.batch = 1;
  call.intermediate_size = weight.size(0);
  call.x = x;
  call.up_weight = weight.const_data_ptr();
  call.up_stride = weight.stride(0);
  call.up_columns = columns(weight);
}

// The rows of a call's step (3).
struct Transposed {
  Tensor weight, largest_scales;

  Transposed() = default;
  Transposed(const Description& described, const std::string& name, ScalarType type)
      : weight(described.weight(name + "_weight_transposed", type)),
        largest_scales(described.vector(name + "_largest_scales", ScalarType::Float, weight.size(0))) {}

  void set_down(Call& call) const {
    call.has_down = true;
    call.batch = 1;
    call.intermediate_size = weight.size(0);
    call.down_weight = weight.const_data_ptr();
    call.down_stride = weight.stride(0);
    call.down_columns = columns(weight);
    call.largest_scales = static_cast<const float*>(data(largest_scales));
  }
  // output = weight^T x over the non-zero x.
  template <typename T>
  void operator()(Mode mode, const T* x, T* output) const {
    Call call{};
    set_down(call);
    call.values_are = X1;
    call.values = x;
    call.output = output;
    compute<T>(mode, call, weight);
  }
};

// A product with a matrix, and a bias to add.
struct Linear {
  Tensor weight, bias;

  Linear() = default;
  Linear(const Description& described, const std::string& name, ScalarType type)
      : weight(described.weight(name + "_weight", type)), bias(described.vector(name + "_bias", type, weight.size(0))) {}
  int64_t rows() const { return weight.size(0); }

  // output = weight x + bias. With scores, only rows whose score reaches the threshold are read.
  template <typename T>
  void operator()(Mode mode, const T* x, T* output, const T* scores = nullptr, float threshold = 0) const {
    Call call{};
    set_up(call, weight, x);
    call.every = scores == nullptr;
    if (scores != nullptr) {
      call.values_are = SCORES;
      call.values = scores;
      call.threshold = threshold;
    }
    call.output = output;
    compute<T>(mode, call, weight);
    if (bias.defined()) elementwise<T>().add(output, static_cast<const T*>(bias.const_data_ptr()), 1, rows());
  }
};

struct OptionalNorm {
  bool present = false;
  Tensor weight, bias;
  Norm norm{};

  OptionalNorm() = default;
  OptionalNorm(const Description& described, const std::string& name, ScalarType type, int64_t size)
      : present(described.number(name + "_epsilon", -1) >= 0),
        weight(described.vector(name + "_weight", type, size)),
        bias(described.vector(name + "_bias", type, size)),
        norm{data(weight), data(bias), size, static_cast<float>(described.number(name + "_epsilon")),
            described.number(name + "_centred") != 0, static_cast<float>(described.number(name + "_offset")),
            described.number(name + "_narrow") != 0} {}

  template <typename T>
  void operator()(const T* x, T* output) const {
    if (present) elementwise<T>().normalize(norm, x, output);
  }
};

// Norms of a layer's queries or keys: over a head, with the same weights for all or each its own, or over all heads.
struct HeadNorms {
  OptionalNorm norm;
  int64_t parts = 0;
  bool own_weights = false;

  HeadNorms() = default;
  HeadNorms(const Description& described, const std::string& name, ScalarType type, int64_t heads, int64_t head_size)
      : parts(described.number(name + "_whole") != 0 ? 1 : heads), own_weights(described.number(name + "_own") != 0) {
    norm = OptionalNorm(described, name, type, own_weights || parts == 1 ? heads * head_size : head_size);
    if (own_weights) norm.norm.size = head_size;
  }

  template <typename T>
  void operator()(T* x) const {
    if (!norm.present) return;
    Norm part = norm.norm;
    for (int64_t i = 0; i < parts; ++i, x += part.size) {
      elementwise<T>().normalize(part, x, x);
      if (own_weights && part.weight != nullptr) part.weight = static_cast<const T*>(part.weight) + part.size;
    }
  }
};

// Where a token's keys and values are kept, and how it is rotated.
struct Place {
  int64_t position;
  Tensor cache;  // [layers, 2, kv_heads, capacity, head_size]
  Tensor rotary;  // float32 [kinds, capacity, 2, rotated]: cosines and sines
  Mode mode;
};

struct Layer {
  int64_t heads, kv_heads, head_size, window, rotary_kind;
  bool neighbours, narrow_rotary, norms_after_rotation, parallel;
  float scale, residual_multiplier;
  OptionalNorm before_attention, after_attention, before_ffn, after_ffn;
  HeadNorms query_norm, key_norm;
  Linear joint, output;  // of queries, keys and values, one after the other; of what they give

  Activation activation;
  bool relu_up;
  float threshold, decision_threshold;
  Linear gate, fc1;
  Tensor up_weight;
  Transposed down, fc2;

  Layer(const Description& described, ScalarType type, int64_t hidden_size)
      : heads(described.number("heads")), kv_heads(described.number("kv_heads")), head_size(described.number("head_size")),
        window(described.number("window")), rotary_kind(described.number("rotary_kind", -1)),
        neighbours(described.number("neighbours") != 0), narrow_rotary(described.number("narrow_rotary") != 0),
        norms_after_rotation(described.number("norms_after_rotation") != 0), parallel(described.number("parallel") != 0),
        scale(described.number("scale")), residual_multiplier(described.number("residual_multiplier", 1)),
        before_attention(described, "before_attention", type, hidden_size),
        after_attention(described, "after_attention", type, hidden_size),
        before_ffn(described, "before_ffn", type, hidden_size), after_ffn(described, "after_ffn", type, hidden_size),
        query_norm(described, "query_norm", type, heads, head_size), key_norm(described, "key_norm", type, kv_heads, head_size),
        joint(described, "joint", type), output(described, "output", type), activation(static_cast<Activation>(described.number("activation"))),
        relu_up(described.number("relu_up") != 0), threshold(described.number("threshold")), decision_threshold(described.number("decision_threshold")),
        gate(described, "gate", type), up_weight(described.weight("up_weight", type)),
        down(described, "down", type) {
    TORCH_CHECK_VALUE(kv_heads > 0 && heads % kv_heads == 0, heads, " heads are not a multiple of ", kv_heads);
    const auto check = [](const char* name, const Tensor& weight, int64_t rows, int64_t expected) {
      TORCH_CHECK_VALUE(weight.size(0) == rows && columns(weight) == expected, name, " must be [", rows, ", ", expected, "], not [",
          weight.size(0), ", ", columns(weight), "]");
    };
    check("joint_weight", joint.weight, (heads + 2 * kv_heads) * head_size, hidden_size);
    check("output_weight", output.weight, hidden_size, heads * head_size);
    check("gate_weight", gate.weight, gate.rows(), hidden_size);
    check("up_weight", up_weight, gate.rows(), hidden_size);
    check("down_weight_transposed", down.weight, gate.rows(), hidden_size);
    if (described.tensor("fc1_weight").defined()) {
      fc1 = Linear(described, "fc1", type);
      fc2 = Transposed(described, "fc2", type);
      check("fc1_weight", fc1.weight, fc1.rows(), hidden_size);
      check("fc2_weight_transposed", fc2.weight, fc1.rows(), gate.rows());
    }
  }

  int64_t scratch() const { return (heads + 2 * kv_heads) * head_size + 3 * output.rows() + 3 * gate.rows() + hidden_neurons(); }
  int64_t hidden_neurons() const { return fc1.weight.defined() ? fc1.rows() : 0; }

  // hidden, of one token, becomes the layer's output.
  template <typename T>
  void operator()(const Place& place, int64_t index, T* hidden, T* scratch) const {
    const int64_t size = output.rows();
    const auto take = [&](int64_t count) { return std::exchange(scratch, scratch + count); };
    T *normed = take(size), *branch = take(size);
    before_attention(hidden, normed);
    const T* input = before_attention.present ? normed : hidden;
    attend_to(place, index, input, branch, take);
    after_attention(branch, branch);
    T* const other = take(size);
    const T* ffn_input = input;
    if (parallel) {
      // both branches read the same input, which must not change in between
      if (!before_attention.present) ffn_input = static_cast<T*>(std::memcpy(other, hidden, size * sizeof(T)));
      elementwise<T>().add(hidden, branch, residual_multiplier, size);
    } else {
      elementwise<T>().add(hidden, branch, residual_multiplier, size);
      before_ffn(hidden, other);
      ffn_input = before_ffn.present ? other : hidden;
    }
    compute_ffn(place.mode, ffn_input, hidden, branch, take);
    after_ffn(branch, branch);
    elementwise<T>().add(hidden, branch, residual_multiplier, size);
  }

  template <typename T, typename Take>
  void attend_to(const Place& place, int64_t index, const T* input, T* result, const Take& take) const {
    T* const queries = take((heads + 2 * kv_heads) * head_size);
    T *const keys = queries + heads * head_size, *const values = keys + kv_heads * head_size;
    joint(place.mode, input, queries);
    const auto normalize = [&] {
      query_norm(queries);
      key_norm(keys);
    };
    if (!norms_after_rotation) normalize();
    if (rotary_kind >= 0) {
      const int64_t size = place.rotary.size(3);
      const float* row = place.rotary.const_data_ptr<float>() + (rotary_kind * place.rotary.size(1) + place.position) * 2 * size;
      const Rotary rotary{row, row + size, size, neighbours, narrow_rotary};
      elementwise<T>().rotate(rotary, queries, heads, head_size);
      elementwise<T>().rotate(rotary, keys, kv_heads, head_size);
    }
    if (norms_after_rotation) normalize();

    const int64_t capacity = place.cache.size(3), part = kv_heads * capacity * head_size;
    T* const kept_keys = static_cast<T*>(place.cache.mutable_data_ptr()) + 2 * index * part;
    T* const kept_values = kept_keys + part;
    for (int64_t head = 0; head < kv_heads; ++head) {
      const int64_t row = (head * capacity + place.position) * head_size;
      std::memcpy(static_cast<void*>(kept_keys + row), keys + head * head_size, head_size * sizeof(T));
      std::memcpy(static_cast<void*>(kept_values + row), values + head * head_size, head_size * sizeof(T));
    }
    const int64_t length = window > 0 ? std::min(window, place.position + 1) : place.position + 1;
    const int64_t first = (place.position + 1 - length) * head_size;
    const Attention attention{heads, kv_heads, head_size, length, queries, kept_keys + first, kept_values + first, head_size,
        capacity * head_size, head_size, capacity * head_size, head_size, scale, queries};
    // a head's query is no longer needed once its output is written over it
    attend(attention, place.cache.scalar_type());
    output(place.mode, queries, result);
  }

  template <typename T, typename Take>
  void compute_ffn(Mode mode, const T* input, const T* residual, T* result, const Take& take) const {
    T* const gates = take(gate.rows());
    if (mode == Mode::PREDICTED) {
      T *hidden = take(fc1.rows()), *scores = take(gate.rows());
      fc1(mode, residual, hidden);
      elementwise<T>().shifted_relu(hidden, 0, fc1.rows());
      fc2(mode, hidden, scores);
      gate(mode, input, gates, scores, decision_threshold);
    } else {
      gate(mode, input, gates);
    }
    Call call{};
    set_up(call, up_weight, input);
    if (activation == Activation::SILU) {  // nothing is zero
      T* const factors = take(gate.rows());
      call.every = true;
      call.output = factors;
      compute<T>(mode, call, up_weight);
      elementwise<T>().silu(gates, factors, gate.rows());
      return down(mode, gates, result);
    }
    if (activation == Activation::SHIFTED_RELU) elementwise<T>().shifted_relu(gates, threshold, gate.rows());
    if (activation == Activation::SQUARED_RELU) elementwise<T>().squared_relu(gates, gate.rows());
    call.every = mode == Mode::DENSE;
    call.values_are = GATES;
    call.values = gates;
    call.threshold = activation == Activation::FATRELU ? threshold : 0;
    call.relu_up = relu_up;
    down.set_down(call);
    call.output = result;
    compute<T>(mode, call, up_weight);
  }
};

class Decoder : public torch::CustomClassHolder {
 public:
  Decoder(Description::Tensors tensors, Description::Numbers numbers, const c10::List<Description::Tensors>& layer_tensors,
      const c10::List<Description::Numbers>& layer_numbers) {
    const Description described(std::move(tensors), std::move(numbers));
    embedding_ = described.tensor("embedding_weight");
    TORCH_CHECK_VALUE(embedding_.defined() && embedding_.dim() == 2 && embedding_.is_contiguous(), "embedding_weight must be a matrix");
    const ScalarType type = embedding_.scalar_type();
    TORCH_CHECK_VALUE(type == ScalarType::BFloat16 || type == ScalarType::Half || type == ScalarType::Float,
        "embedding_weight: one of bfloat16, float16 and float32 is needed");
    const int64_t size = embedding_.size(1);
    multiplier_ = described.number("embedding_multiplier", 1);
    norm_ = OptionalNorm(described, "final", type, size);
    head_ = Linear(described, "head", type);
    TORCH_CHECK_VALUE(columns(head_.weight) == size, "head_weight must have ", size, " columns");
    TORCH_CHECK_VALUE(layer_tensors.size() == layer_numbers.size(), "tensors of ", layer_tensors.size(), " layers, numbers of ",
        layer_numbers.size());
    int64_t needed = 0;
    for (size_t i = 0; i < layer_tensors.size(); ++i) {
      layers_.emplace_back(Description(layer_tensors.get(i), layer_numbers.get(i)), type, size);
      needed = std::max(needed, layers_.back().scratch());
    }
    scratch_ = at::empty({needed}, embedding_.options());
  }

  // The logits [vocabulary] after a token. Its position's rows of the cache are filled; earlier ones must have been.
  Tensor step(int64_t token, int64_t position, const Tensor& cache, const Tensor& rotary, int64_t mode) {
    TORCH_CHECK_INDEX(token >= 0 && token < embedding_.size(0), "token ", token, " is none of ", embedding_.size(0));
    Tensor hidden = at::empty({embedding_.size(1)}, embedding_.options());
    std::memcpy(hidden.mutable_data_ptr(),
        static_cast<const char*>(embedding_.const_data_ptr()) + token * embedding_.size(1) * embedding_.element_size(), hidden.nbytes());
    Tensor logits = at::empty({head_.rows()}, embedding_.options());
    const Place place = checked(position, cache, rotary, mode);
    typed([&](auto zero) {
      using T = decltype(zero);
      T* const values = static_cast<T*>(hidden.mutable_data_ptr());
      if (multiplier_ != 1) elementwise<T>().scale(values, multiplier_, hidden.numel());
      for (size_t i = 0; i < layers_.size(); ++i) layers_[i](place, i, values, scratch<T>());
      norm_(values, values);
      head_(place.mode, values, static_cast<T*>(logits.mutable_data_ptr()));
    });
    return logits;
  }

  // The output of one layer for one token's hidden state [hidden_size].
  Tensor layer(int64_t index, const Tensor& hidden, int64_t position, const Tensor& cache, const Tensor& rotary, int64_t mode) {
    TORCH_CHECK_INDEX(index >= 0 && index < static_cast<int64_t>(layers_.size()), "layer ", index, " is none of ", layers_.size());
    TORCH_CHECK_VALUE(hidden.scalar_type() == embedding_.scalar_type() && hidden.dim() == 1 && hidden.numel() == embedding_.size(1),
        "hidden must be [", embedding_.size(1), "], of the weights' dtype");
    Tensor result = hidden.clone(at::MemoryFormat::Contiguous);
    const Place place = checked(position, cache, rotary, mode);
    typed([&](auto zero) {
      using T = decltype(zero);
      layers_[index](place, index, static_cast<T*>(result.mutable_data_ptr()), scratch<T>());
    });
    return result;
  }

 private:
  Place checked(int64_t position, const Tensor& cache, const Tensor& rotary, int64_t mode) const {
    const int64_t count = static_cast<int64_t>(layers_.size());
    TORCH_CHECK_VALUE(cache.dim() == 5 && cache.is_contiguous() && cache.size(0) == count && cache.size(1) == 2 &&
        cache.scalar_type() == embedding_.scalar_type(), "cache must be contiguous, [", count,
        ", 2, key heads, capacity, head size], of the weights' dtype");
    TORCH_CHECK_INDEX(position >= 0 && position < cache.size(3), "position ", position, " is outside a cache of ", cache.size(3));
    TORCH_CHECK_VALUE(rotary.dim() == 4 && rotary.is_contiguous() && rotary.size(1) >= cache.size(3) && rotary.size(2) == 2 &&
        rotary.scalar_type() == ScalarType::Float, "rotary must be contiguous float32 [kinds, capacity, 2, features]");
    TORCH_CHECK_VALUE(mode >= 0 && mode <= 3, "mode is ", mode, ", not 0 (dense), 1 (exact), 2 (predicted) or 3 (nothing)");
    for (const Layer& layer : layers_) {
      TORCH_CHECK_VALUE(cache.size(2) == layer.kv_heads && cache.size(4) == layer.head_size, "the cache's heads are not the layers'");
      TORCH_CHECK_VALUE(layer.rotary_kind < rotary.size(0) && rotary.size(3) <= layer.head_size && rotary.size(3) % 2 == 0,
          "the rotary table is another model's");
      TORCH_CHECK_VALUE(mode != 2 || layer.fc1.weight.defined(), "there are no predictors");
    }
    return {position, cache, rotary, static_cast<Mode>(mode)};
  }

  template <typename Function>
  void typed(const Function& function) const {
    switch (embedding_.scalar_type()) {
      case ScalarType::BFloat16: return function(c10::BFloat16());
      case ScalarType::Half: return function(c10::Half());
      default: function(0.0f);
    }
  }

  template <typename T>
  T* scratch() { return static_cast<T*>(scratch_.mutable_data_ptr()); }

  Tensor embedding_, scratch_;
  float multiplier_ = 1;
  OptionalNorm norm_;
  Linear head_;
  std::vector<Layer> layers_;
};

}  // namespace
}  // namespace prosparse

TORCH_LIBRARY_FRAGMENT(prosparse, library) {
  using prosparse::Decoder;
  using prosparse::Description;
  library.class_<Decoder>("Decoder")
      .def(torch::init<Description::Tensors, Description::Numbers, const c10::List<Description::Tensors>&,
          const c10::List<Description::Numbers>&>())
      .def("step", &Decoder::step)
      .def("layer", &Decoder::layer);
}
