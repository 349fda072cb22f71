// Memory formats, views, autocast and switches.

#include "shim.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>

#include <cstdlib>

namespace r2o {

char* message(const char* text) noexcept {
  char* copy = static_cast<char*>(std::malloc(std::strlen(text) + 1));
  if (copy != nullptr) std::strcpy(copy, text);
  return copy;
}

std::vector<at::Tensor> borrow(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; ++i) list.push_back(*tensors[i]);
  return list;
}

}  // namespace r2o

using r2o::guarded;

namespace {

c10::DeviceType device_type(int number) { return number == 0 ? c10::DeviceType::CPU : c10::DeviceType::CUDA; }

// Strides of a dense (O, I, H, W) tensor whose second dimension varies fastest.
std::vector<int64_t> channels_last_strides(c10::IntArrayRef size) {
  return {size[1] * size[2] * size[3], 1, size[3] * size[1], size[1]};
}

}  // namespace

extern "C" {

void r2o_aten_free(char* text) { std::free(text); }

char* r2o_aten_channels_last(const at::Tensor* tensor, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(tensor->contiguous(at::MemoryFormat::ChannelsLast)); });
}

char* r2o_aten_is_channels_last(const at::Tensor* tensor, bool* out) {
  return guarded([&] { *out = tensor->is_contiguous(at::MemoryFormat::ChannelsLast); });
}

char* r2o_aten_alias(const at::Tensor* base, int64_t offset, const int64_t* size, size_t dims, bool channels_last,
                     at::Tensor** out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    c10::IntArrayRef shape(size, dims);
    TORCH_CHECK(base->is_contiguous() && !base->requires_grad(), "only a plain buffer can be cut into tensors");
    std::vector<int64_t> strides;
    if (channels_last && dims == 4) {
      strides = channels_last_strides(shape);
    } else {
      strides.resize(dims);
      int64_t step = 1;
      for (size_t d = dims; d-- > 0;) {
        strides[d] = step;
        step *= shape[d];
      }
    }
    // detach: a leaf of its own, with its own version counter, over the same memory.
    *out = new at::Tensor(base->as_strided(shape, strides, offset).detach());
  });
}

char* r2o_aten_drop_grads(at::Tensor* const* tensors, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) tensors[i]->mutable_grad().reset();
  });
}

char* r2o_aten_deterministic(bool on) {
  return guarded([&] {
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/on);
    at::globalContext().setBenchmarkCuDNN(!on);
    at::globalContext().setDeterministicCuDNN(on);
  });
}

char* r2o_aten_autocast_enter(int device, bool* was_on, int* was_dtype, bool* was_caching) {
  return guarded([&] {
    const auto type = device_type(device);
    *was_on = at::autocast::is_autocast_enabled(type);
    *was_dtype = static_cast<int>(at::autocast::get_autocast_dtype(type));
    *was_caching = at::autocast::is_autocast_cache_enabled();
    at::autocast::set_autocast_enabled(type, true);
    at::autocast::set_autocast_dtype(type, at::kBFloat16);
    at::autocast::set_autocast_cache_enabled(true);
    at::autocast::increment_nesting();
  });
}

char* r2o_aten_autocast_leave(int device, bool was_on, int was_dtype, bool was_caching) {
  return guarded([&] {
    const auto type = device_type(device);
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(type, was_on);
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(was_dtype));
    at::autocast::set_autocast_cache_enabled(was_caching);
  });
}

char* r2o_aten_has_bfloat16(bool* out) {
  return guarded([&] {
    __builtin_cpu_init();
    *out = __builtin_cpu_supports("avx512bf16");
  });
}
}
