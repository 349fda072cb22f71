// The C face of the shim. Every function returns null, or a message that r2o_aten_free releases; results go to `out`.
// No exception crosses it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

namespace c10 {
struct Event;
}

namespace r2o {

char* message(const char* text) noexcept;

// Runs `body` and turns what it throws into a message.
template <class F>
char* guarded(F&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return message(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return message(e.what());
  } catch (...) {
    return message("an unknown C++ exception");
  }
}

// A list of tensors that Rust lends.
std::vector<at::Tensor> borrow(at::Tensor* const* tensors, size_t count);

}  // namespace r2o

extern "C" {
void r2o_aten_free(char* text);

char* r2o_aten_channels_last(const at::Tensor* tensor, at::Tensor** out);
char* r2o_aten_is_channels_last(const at::Tensor* tensor, bool* out);
char* r2o_aten_alias(const at::Tensor* base, int64_t offset, const int64_t* size, size_t dims, bool channels_last,
                     at::Tensor** out);
// `lanes` tensors over the memory of `value`, whose gradients add up in the float64 leaf `leaf` (2, ...): coarse and fine
// parts.
char* r2o_aten_fan_out(const at::Tensor* leaf, const at::Tensor* value, size_t lanes, at::Tensor** out);
char* r2o_aten_drop_grads(at::Tensor* const* tensors, size_t count);
char* r2o_aten_deterministic(bool on);
char* r2o_aten_autocast_enter(int device_type, bool* was_on, int* was_dtype, bool* was_caching);
char* r2o_aten_autocast_leave(int device_type, bool was_on, int was_dtype, bool was_caching);
char* r2o_aten_has_bfloat16(bool* out);

struct R2oLars {
  double learning_rate, momentum, weight_decay, trust;
};
// Updates parameters and momentum in place; `adapt` tells which parameters are decayed and adapted.
char* r2o_aten_lars(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* momenta, const bool* adapt,
                    size_t count, const R2oLars* options);
// Euclidean norms (count), float64 on the CPU.
char* r2o_aten_norms(at::Tensor* const* tensors, size_t count, at::Tensor** out);
char* r2o_aten_lerp(at::Tensor* const* to, at::Tensor* const* from, size_t count, double weight);

// points (L,B,S,C) float32 contiguous; regions (L) int64: of each image the first regions[l] points count; centres
// (L,K,C) float32 or null; uniforms (L,K,T) float64. labels (L,B,S) int64, -1 where no point; inertia (L) float64;
// iterations (L) int64.
char* r2o_aten_kmeans(const at::Tensor* points, const at::Tensor* regions, const at::Tensor* centres,
                      const at::Tensor* uniforms, int64_t clusters, int64_t max_iterations, double tolerance,
                      at::Tensor** labels, at::Tensor** inertia, at::Tensor** iterations);

char* r2o_aten_cache_memory(size_t limit_bytes);
// The moment after what this thread queued on a GPU; waiting for it; milliseconds between two that have come.
char* r2o_aten_mark(int device_index, c10::Event** out);
char* r2o_aten_mark_wait(const c10::Event* mark);
char* r2o_aten_mark_milliseconds(const c10::Event* from, const c10::Event* to, double* out);
void r2o_aten_mark_drop(c10::Event* mark);
// Page-locked host memory, (bytes) uint8.
char* r2o_aten_pinned(size_t bytes, at::Tensor** out);
// A contiguous tensor of `kind` (c10::ScalarType) on a device, copied out of `data`.
char* r2o_aten_upload(const void* data, const int64_t* size, size_t dims, int8_t kind, int device_type,
                      int device_index, at::Tensor** out);
}
