// Shutting down a Gloo group's sockets ends its collectives, but not all: Gloo does not tell a send that was queued behind
// others, or that failed to be written, when its connection ends (Pair::signalException passes over unbound buffers that are
// being transmitted), and it then waits for its whole timeout. So nobody waits for Gloo itself: waiters have a future of
// ours, which abort fails, and an aborted backend is let go of in a thread that nobody waits for.

#include "abortable.h"

#include <ATen/core/ivalue.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace r2o_c10d {
namespace {

using c10::ivalue::Future;
template <class T>
using Ptr = c10::intrusive_ptr<T>;

// A collective under way: settled once, by its end or by abort.
struct Pending {
  Ptr<c10d::Work> inner;
  Ptr<Future> future;
  std::atomic<bool> settled{false};

  explicit Pending(Ptr<c10d::Work> work)
      : inner(std::move(work)), future(c10::make_intrusive<Future>(inner->getFuture()->elementType())) {}

  void follow(Future& ended) {
    if (settled.exchange(true)) return;
    if (ended.hasError()) {
      future->setError(ended.exception_ptr());
    } else {
      future->markCompleted(ended.value());
    }
  }

  void fail() {
    if (settled.exchange(true)) return;
    future->setError(std::make_exception_ptr(std::runtime_error("the group was aborted")));
  }
};

class AbortableWork : public c10d::Work {
 public:
  AbortableWork(int rank, std::shared_ptr<Pending> pending) : Work(rank), pending_(std::move(pending)) {}

  bool isCompleted() override { return pending_->future->completed(); }
  bool isSuccess() const override { return pending_->future->completed() && !pending_->future->hasError(); }
  std::exception_ptr exception() const override {
    return pending_->future->hasError() ? pending_->future->exception_ptr() : nullptr;
  }
  std::vector<at::Tensor> result() override { return pending_->inner->result(); }
  void synchronize() override {}
  // The group's timeout ends it.
  bool wait(std::chrono::milliseconds) override {
    pending_->future->waitAndThrow();
    return true;
  }
  Ptr<Future> getFuture() override { return pending_->future; }

 private:
  std::shared_ptr<Pending> pending_;
};

class Abortable : public c10d::Backend {
 public:
  explicit Abortable(Ptr<c10d::Backend> inner)
      : Backend(inner->getRank(), inner->getSize()), inner_(std::move(inner)) {}

  const std::string getBackendName() const override { return inner_->getBackendName(); }

  Ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors, const c10d::AllreduceOptions& options) override {
    return track(inner_->allreduce(tensors, options));
  }
  Ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors, const c10d::BroadcastOptions& options) override {
    return track(inner_->broadcast(tensors, options));
  }
  Ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs, std::vector<at::Tensor>& inputs,
                            const c10d::AllgatherOptions& options) override {
    return track(inner_->allgather(outputs, inputs, options));
  }
  Ptr<c10d::Work> barrier(const c10d::BarrierOptions& options) override { return track(inner_->barrier(options)); }

  // Destroying the inner backend waits for its threads, and those of an aborted one may still hang.
  ~Abortable() override {
    if (aborted_) std::thread([inner = std::move(inner_)]() mutable { inner.reset(); }).detach();
  }

  void abort() override {
    const std::lock_guard<std::mutex> held(mutex_);
    aborted_ = true;
    for (const auto& weak : pending_) {
      if (const auto pending = weak.lock()) pending->fail();
    }
    pending_.clear();
  }

 private:
  Ptr<c10d::Work> track(Ptr<c10d::Work> work) {
    auto pending = std::make_shared<Pending>(std::move(work));
    pending->inner->getFuture()->addCallback([pending](Future& ended) { pending->follow(ended); });
    const std::lock_guard<std::mutex> held(mutex_);
    if (aborted_) pending->fail();
    std::vector<std::weak_ptr<Pending>> still;
    for (auto& weak : pending_) {
      const auto other = weak.lock();
      if (other && !other->settled) still.push_back(std::move(weak));
    }
    still.push_back(pending);
    pending_ = std::move(still);
    return c10::make_intrusive<AbortableWork>(getRank(), std::move(pending));
  }

  Ptr<c10d::Backend> inner_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Pending>> pending_;
  bool aborted_ = false;
};

}  // namespace

c10::intrusive_ptr<c10d::Backend> make_abortable(c10::intrusive_ptr<c10d::Backend> inner) {
  return c10::make_intrusive<Abortable>(std::move(inner));
}

}  // namespace r2o_c10d
