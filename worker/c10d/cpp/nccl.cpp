// Process groups over NCCL. Compiled with the feature `cuda` only.

#include "shim.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/util/env.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <utility>

namespace {

// The lifecycle is ours: a failed collective is reported to the coordinator and the group aborted. So no watchdog may
// end the process (2: clean up communicators only), and no monitor thread may poll the store. What the user set stays.
void own_the_lifecycle() {
  for (const auto& [name, value] : {std::pair{"TORCH_NCCL_ASYNC_ERROR_HANDLING", "2"},
                                    std::pair{"TORCH_NCCL_ENABLE_MONITORING", "0"},
                                    std::pair{"TORCH_NCCL_DUMP_ON_TIMEOUT", "0"}, std::pair{"TORCH_FR_BUFFER_SIZE", "0"}}) {
    if (!c10::utils::has_env(name)) c10::utils::set_env(name, value);
  }
}

}  // namespace

extern "C" {

char* r2o_nccl_group(void* store, int device, int rank, int world, int64_t timeout_ms, r2o_c10d::Group** out) {
  return r2o_c10d::guarded([&] {
    auto rendezvous = r2o_c10d::make_store(store, timeout_ms);
    own_the_lifecycle();
    const c10::Device gpu(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device));
    c10::cuda::CUDAGuard guard(gpu);
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(rendezvous, rank, world, options);
    auto group = c10::make_intrusive<c10d::ProcessGroup>(rendezvous, rank, world);
    group->setBoundDeviceId(gpu);
    group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, backend);
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
    *out = new r2o_c10d::Group{std::move(group), std::move(backend)};
  });
}
}
