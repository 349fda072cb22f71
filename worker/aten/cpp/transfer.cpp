// Host memory that a device reads by itself, and copies out of host memory.

#include "shim.h"

#include <ATen/ATen.h>

using r2o::guarded;

extern "C" {

char* r2o_aten_pinned(size_t bytes, at::Tensor** out) {
  return guarded([&] {
    const auto options = at::TensorOptions(at::kByte).pinned_memory(true);
    *out = new at::Tensor(at::empty({static_cast<int64_t>(bytes)}, options));
  });
}

char* r2o_aten_upload(const void* data, const int64_t* size, size_t dims, int8_t kind, int device_type,
                      int device_index, at::Tensor** out) {
  return guarded([&] {
    const auto type = static_cast<at::ScalarType>(kind);
    const at::Tensor host = at::from_blob(const_cast<void*>(data), c10::IntArrayRef(size, dims), type);
    const auto device = device_type == 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, device_index);
    // Out of ordinary memory libtorch waits for the copy; out of pinned memory it goes on beside the caller.
    *out = new at::Tensor(host.to(device, type, /*non_blocking=*/true, /*copy=*/true));
  });
}
}
