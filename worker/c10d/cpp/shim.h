// The C face of the shim. Every function returns null, or a message that r2o_c10d_free releases; results go to `out`.
// No exception crosses it.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>

namespace r2o_c10d {

// A process group: the dispatching group that c10d::Reducer wants, and the one backend behind it.
struct Group {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  c10::intrusive_ptr<c10d::Backend> backend;
};

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

// A store whose operations are calls into Rust.
c10::intrusive_ptr<c10d::Store> make_store(void* store, int64_t timeout_ms);

}  // namespace r2o_c10d

extern "C" {
// Implemented in Rust (src/bridge.rs). Each returns null or a message made by r2o_c10d_message.
char* r2o_store_set(void* store, const char* key, size_t key_len, const uint8_t* value, size_t len);
char* r2o_store_get(void* store, const char* key, size_t key_len, int64_t timeout_ms, void* out_bytes);
char* r2o_store_add(void* store, const char* key, size_t key_len, int64_t delta, int64_t* out);
char* r2o_store_compare_set(void* store, const char* key, size_t key_len, const uint8_t* expected, size_t expected_len,
                            const uint8_t* desired, size_t desired_len, void* out_bytes);
char* r2o_store_check(void* store, const char* const* keys, const size_t* lens, size_t count, bool* out);
char* r2o_store_delete(void* store, const char* key, size_t key_len, bool* out);
void r2o_store_drop(void* store);

// Called by Rust.
void r2o_c10d_free(char* text);
char* r2o_c10d_message(const char* text, size_t len);
void r2o_c10d_bytes(void* out_bytes, const uint8_t* data, size_t len);

char* r2o_gloo_device(const char* address, bool is_interface, void** out);
void r2o_gloo_device_drop(void* device);
// Takes the store over, whatever comes out.
char* r2o_gloo_group(void* store, void* device, int rank, int world, int64_t timeout_ms, r2o_c10d::Group** out);
void r2o_group_drop(r2o_c10d::Group* group);
// From any thread.
char* r2o_group_abort(r2o_c10d::Group* group);
char* r2o_group_all_reduce(r2o_c10d::Group* group, at::Tensor* tensor);
char* r2o_group_broadcast(r2o_c10d::Group* group, at::Tensor* tensor, int root);
char* r2o_group_all_gather(r2o_c10d::Group* group, const at::Tensor* tensor, at::Tensor** out);
char* r2o_group_barrier(r2o_c10d::Group* group, int device);

char* r2o_reducer_new(r2o_c10d::Group* group, at::Tensor* const* params, size_t count, size_t first_bucket_bytes,
                      size_t bucket_bytes, bool find_unused, void** out);
char* r2o_reducer_prepare_forward(void* reducer);
char* r2o_reducer_prepare_backward(void* reducer);
char* r2o_reducer_drop(void* reducer);

char* r2o_nccl_group(void* store, int device, int rank, int world, int64_t timeout_ms, r2o_c10d::Group** out);
}
