// Process groups over Gloo, and the collectives that do not depend on the backend.

#include "abortable.h"
#include "shim.h"

#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>
#include <c10/util/env.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace {

using c10d::ProcessGroupGloo;
using Device = std::shared_ptr<gloo::transport::Device>;
using Millis = std::chrono::milliseconds;

// Gloo's workers per group: one may carry a gradient bucket while another serves a batch norm.
constexpr int kThreads = 3;

// c10d's flight recorder keeps a map of groups that all threads write without a lock, so two groups at work in one
// process crash it now and then. A size given by the user stays.
void without_flight_recorder() {
  static const bool once = [] {
    if (!c10::utils::has_env("TORCH_FR_BUFFER_SIZE")) c10::utils::set_env("TORCH_FR_BUFFER_SIZE", "0");
    return true;
  }();
  (void)once;
}

void wait(const c10::intrusive_ptr<c10d::Work>& work) {
  if (work) work->wait();
}

// Collectives move raw memory, so views with gaps travel as a dense copy.
template <class F>
void on_dense(at::Tensor& tensor, F&& body) {
  c10::NoGradGuard no_grad;
  at::Tensor plain = tensor.detach();
  if (plain.is_non_overlapping_and_dense()) {
    body(plain);
    return;
  }
  at::Tensor dense = plain.contiguous();
  body(dense);
  plain.copy_(dense);
}

}  // namespace

extern "C" {

char* r2o_gloo_device(const char* address, bool is_interface, void** out) {
  return r2o_c10d::guarded([&] {
    without_flight_recorder();
    auto device = is_interface ? ProcessGroupGloo::createDeviceForInterface(address)
                               : ProcessGroupGloo::createDeviceForHostname(address);
    *out = new Device(std::move(device));
  });
}

void r2o_gloo_device_drop(void* device) { delete static_cast<Device*>(device); }

char* r2o_gloo_group(void* store, void* device, int rank, int world, int64_t timeout_ms, r2o_c10d::Group** out) {
  return r2o_c10d::guarded([&] {
    auto rendezvous = r2o_c10d::make_store(store, timeout_ms);
    auto options = ProcessGroupGloo::Options::create(Millis(timeout_ms));
    options->devices.push_back(*static_cast<Device*>(device));
    options->threads = kThreads;
    auto backend = r2o_c10d::make_abortable(c10::make_intrusive<ProcessGroupGloo>(rendezvous, rank, world, options));
    auto group = c10::make_intrusive<c10d::ProcessGroup>(rendezvous, rank, world);
    group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, backend);
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    *out = new r2o_c10d::Group{std::move(group), std::move(backend)};
  });
}

void r2o_group_drop(r2o_c10d::Group* group) { delete group; }

char* r2o_group_abort(r2o_c10d::Group* group) {
  return r2o_c10d::guarded([&] { group->backend->abort(); });
}

char* r2o_group_all_reduce(r2o_c10d::Group* group, at::Tensor* tensor) {
  return r2o_c10d::guarded([&] {
    on_dense(*tensor, [&](at::Tensor& dense) {
      std::vector<at::Tensor> tensors{dense};
      wait(group->backend->allreduce(tensors));
    });
  });
}

char* r2o_group_broadcast(r2o_c10d::Group* group, at::Tensor* tensor, int root) {
  return r2o_c10d::guarded([&] {
    on_dense(*tensor, [&](at::Tensor& dense) {
      std::vector<at::Tensor> tensors{dense};
      c10d::BroadcastOptions options;
      options.rootRank = root;
      wait(group->backend->broadcast(tensors, options));
    });
  });
}

char* r2o_group_all_gather(r2o_c10d::Group* group, const at::Tensor* tensor, at::Tensor** out) {
  return r2o_c10d::guarded([&] {
    c10::NoGradGuard no_grad;
    std::vector<at::Tensor> inputs{tensor->detach().contiguous()};
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (int rank = 0; rank < group->backend->getSize(); ++rank) {
      outputs[0].push_back(at::empty_like(inputs[0]));
    }
    wait(group->backend->allgather(outputs, inputs));
    for (size_t rank = 0; rank < outputs[0].size(); ++rank) {
      out[rank] = new at::Tensor(std::move(outputs[0][rank]));
    }
  });
}

char* r2o_group_barrier(r2o_c10d::Group* group, int device) {
  return r2o_c10d::guarded([&] {
    c10d::BarrierOptions options;
    if (device >= 0) options.device_ids = {device};
    wait(group->backend->barrier(options));
  });
}
}
