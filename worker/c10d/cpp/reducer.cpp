// The DDP reducer: buckets of gradients, averaged over the ranks while backward goes on.

#include "shim.h"

#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <memory>
#include <unordered_map>
#include <vector>

namespace {

// DistributedDataParallel's first assignment: reverse order of parameters, as backward meets them, a small first bucket
// so that communication starts early. rebuild_buckets replaces it by the true order after the first step.
std::vector<std::vector<size_t>> assign(const std::vector<at::Tensor>& params, size_t first, size_t cap) {
  auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(params, {first, cap}));
  return {buckets.rbegin(), buckets.rend()};
}

// Keeps the times of every step; DistributedDataParallel's logger, their only other reader, looks at one in a hundred.
class TimedReducer : public c10d::Reducer {
 public:
  using c10d::Reducer::Reducer;

  // Seconds from the last gradient that backward computed to the last bucket that was averaged. Waits for the device.
  double wait_seconds() {
    using Event = c10d::Timer::Event;
    auto waited = timer_ ? timer_->measureDifference(Event::kBackwardComputeEnd, Event::kBackwardCommEnd) : std::nullopt;
    return static_cast<double>(waited.value_or(0)) / 1e9;
  }
};

TimedReducer& reducer_of(void* raw) { return *static_cast<TimedReducer*>(raw); }

}  // namespace

extern "C" {

char* r2o_reducer_new(r2o_c10d::Group* group, at::Tensor* const* params, size_t count, size_t first_bucket_bytes,
                      size_t bucket_bytes, bool find_unused, void** out) {
  return r2o_c10d::guarded([&] {
    std::vector<at::Tensor> tensors;
    tensors.reserve(count);
    std::unordered_map<size_t, std::string> names;
    for (size_t i = 0; i < count; ++i) {
      tensors.push_back(*params[i]);
      names[i] = "parameter " + std::to_string(i);
    }
    c10d::verify_params_across_processes(group->group, tensors, std::nullopt);
    auto buckets = assign(tensors, first_bucket_bytes, bucket_bytes);
    std::vector<bool> sparse(count, false);
    auto reducer = std::make_unique<TimedReducer>(
        std::move(tensors), std::move(buckets), group->group, std::move(sparse), static_cast<int64_t>(bucket_bytes),
        find_unused, /*gradient_as_bucket_view=*/true, std::move(names), static_cast<int64_t>(first_bucket_bytes),
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>{});
    reducer->set_ddp_runtime_logging_sample_rate(1);
    *out = reducer.release();
  });
}

char* r2o_reducer_prepare_forward(void* reducer) {
  return r2o_c10d::guarded([&] {
    auto& inner = reducer_of(reducer);
    inner.rebuild_buckets();
    inner.prepare_for_forward();
  });
}

char* r2o_reducer_prepare_backward(void* reducer) {
  return r2o_c10d::guarded([&] { reducer_of(reducer).prepare_for_backward({}); });
}

char* r2o_reducer_wait_seconds(void* reducer, double* out) {
  return r2o_c10d::guarded([&] { *out = reducer_of(reducer).wait_seconds(); });
}

char* r2o_reducer_drop(void* reducer) {
  return r2o_c10d::guarded([&] { delete &reducer_of(reducer); });
}
}
