// Batch norm whose statistics cover groups of lanes, wherever the lanes are.
//
// A group's lanes may be spread over ranks. Forward adds up [sum x, sum x^2] per channel, backward [sum dy,
// sum dy (x - mean)], each with one all-reduce per layer of only the groups that are spread; everything else is local.
// All groups hold equally many values, so no count travels. Weight and bias gradients stay local: the reducer
// averages them with all others.
//
// By lane, every lane's sums travel, in a place of their own, and each rank adds them up in the order of lanes: results
// then do not depend on who has which lanes, bit by bit.

#include "norm.h"

#include <ATen/Context.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace r2o_c10d {
namespace {

// What outlives the call, for backward.
struct Spread : torch::CustomClassHolder {
  std::vector<LocalGroup> local;
  int64_t shared_count = 0;
  int64_t lanes = 0;  // of all local groups
  int64_t lanes_per_group = 0;
  bool by_lane = false;
  c10::intrusive_ptr<c10d::Backend> backend;

  // The images of some local lanes.
  at::Tensor slice(const at::Tensor& x, int64_t first_lane, int64_t count) const {
    const int64_t per_lane = x.size(0) / lanes;
    return x.narrow(0, first_lane * per_lane, count * per_lane);
  }
  at::Tensor slice(const at::Tensor& x, int64_t first_lane, const LocalGroup& group) const {
    return slice(x, first_lane, group.lanes);
  }

  // Values per channel in a whole group.
  double count(const at::Tensor& x) const {
    return static_cast<double>(x.numel() / x.size(1) / lanes * lanes_per_group);
  }

  // Runs body(index, group, first lane).
  template <class F>
  void each(F&& body) const {
    int64_t lane = 0;
    for (size_t i = 0; i < local.size(); ++i) {
      body(static_cast<int64_t>(i), local[i], lane);
      lane += local[i].lanes;
    }
  }

  // Local sums [P, 2, C]: body(group, first lane, lanes, out [2, C]) for each local group, or lane by lane.
  template <class F>
  at::Tensor sums(int64_t channels, const at::TensorOptions& options, F&& body) const {
    const auto count = by_lane ? lanes : static_cast<int64_t>(local.size());
    at::Tensor parts = at::empty({count, 2, channels}, options.dtype(at::kDouble));
    each([&](int64_t i, const LocalGroup& group, int64_t lane) {
      if (!by_lane) return body(i, lane, group.lanes, parts.select(0, i));
      for (int64_t l = lane; l < lane + group.lanes; ++l) body(i, l, 1, parts.select(0, l));
    });
    return parts;
  }

  // Local groups' whole sums [L, 2, C], from every lane's, and all groups' sums [G, 2, C].
  std::pair<at::Tensor, at::Tensor> complete_by_lane(const at::Tensor& parts) const {
    at::Tensor slots = at::zeros({shared_count, lanes_per_group, 2, parts.size(2)}, parts.options());
    each([&](int64_t, const LocalGroup& group, int64_t lane) {
      slots.select(0, group.shared).narrow(0, group.first, group.lanes).copy_(parts.narrow(0, lane, group.lanes));
    });
    if (backend) {
      std::vector<at::Tensor> tensors{slots};
      backend->allreduce(tensors)->wait();
    }
    at::Tensor all = slots.select(1, 0).clone();
    for (int64_t lane = 1; lane < lanes_per_group; ++lane) all.add_(slots.select(1, lane));
    std::vector<at::Tensor> own;
    for (const auto& group : local) own.push_back(all.select(0, group.shared));
    return {at::stack(own), all};
  }

  // Makes local sums whole: those of local groups [L, 2, C], and of shared groups [S, 2, C].
  std::pair<at::Tensor, at::Tensor> complete(const at::Tensor& parts) const {
    if (by_lane) return complete_by_lane(parts);
    return {parts, complete_groups(parts)};
  }

  // Of weight and bias, from local sums [P, 2, C]: this rank's share (C), or every local lane's (lanes, C).
  std::pair<at::Tensor, at::Tensor> parameter_gradients(const at::Tensor& own, const at::Tensor& invstd,
                                                        bool lanes_apart) const {
    at::Tensor scale = invstd.to(at::kDouble);
    if (by_lane) {
      std::vector<at::Tensor> rows;
      each([&](int64_t i, const LocalGroup& group, int64_t) { rows.insert(rows.end(), group.lanes, scale.select(0, i)); });
      scale = at::stack(rows);
    }
    const at::Tensor dweight = own.select(1, 1) * scale, dbias = own.select(1, 0);
    if (lanes_apart) return {dweight.to(at::kFloat), dbias.to(at::kFloat)};
    return {dweight.sum(0).to(at::kFloat), dbias.sum(0).to(at::kFloat)};
  }

  // Makes the local parts [L, 2, C] of shared groups whole, in place; returns the shared groups' sums [S, 2, C].
  at::Tensor complete_groups(const at::Tensor& parts) const {
    if (shared_count == 0) return {};
    at::Tensor shared = at::zeros({shared_count, 2, parts.size(2)}, parts.options());
    each([&](int64_t i, const LocalGroup& group, int64_t) {
      if (group.shared >= 0) shared.select(0, group.shared).copy_(parts.select(0, i));
    });
    std::vector<at::Tensor> tensors{shared};
    backend->allreduce(tensors)->wait();
    each([&](int64_t i, const LocalGroup& group, int64_t) {
      if (group.shared >= 0) parts.select(0, i).copy_(shared.select(0, group.shared));
    });
    return shared;
  }
};

// Mean and biased variance [G, C], float64, of sums [G, 2, C].
std::pair<at::Tensor, at::Tensor> moments(const at::Tensor& sums, double count) {
  at::Tensor mean = sums.select(1, 0) / count;
  at::Tensor var = (sums.select(1, 1) / count - mean * mean).clamp_min(0);
  return {std::move(mean), std::move(var)};
}

// torch's update, with the mean over groups of their statistics.
void update_running(const Norm& norm, const at::Tensor& mean, const at::Tensor& var, double count) {
  const double unbiased = count / std::max(count - 1, 1.0);
  const auto blend = [&](const at::Tensor& running, const at::Tensor& value) {
    at::Tensor target = running.detach();
    target.mul_(1 - norm.momentum).add_(value.to(target.scalar_type()), norm.momentum);
  };
  blend(*norm.running_mean, mean.mean(0));
  blend(*norm.running_var, var.mean(0) * unbiased);
}

void update_running(const Norm& norm, const Spread& spread, const at::Tensor& parts, const at::Tensor& shared,
                    double count) {
  if (norm.running_mean == nullptr) return;
  at::Tensor sums = shared;
  if (!norm.running_from_shared) {
    std::vector<at::Tensor> own;
    spread.each([&](int64_t i, const LocalGroup& group, int64_t) {
      if (group.counts) own.push_back(parts.select(0, i));
    });
    if (own.empty()) return;
    sums = at::stack(own);
  }
  const auto [mean, var] = moments(sums, count);
  update_running(norm, mean, var, count);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A parameter (C), or once for each lane (lanes, C).
at::Tensor values(const at::Tensor& parameter) { return parameter.dim() == 2 ? parameter.select(0, 0) : parameter; }

struct GroupNorm : torch::autograd::Function<GroupNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& bias, const Norm* norm, c10::intrusive_ptr<Spread> spread) {
    const bool gpu = input.is_cuda();
    const at::Tensor x = input.contiguous(input.suggest_memory_format());
    const auto options = x.options().memory_format(std::nullopt);
    const auto [parts, shared] = spread->complete(
        spread->sums(x.size(1), options, [&](int64_t, int64_t lane, int64_t count, const at::Tensor& out) {
          (gpu ? cuda::sums : cpu::sums)(spread->slice(x, lane, count), out);
        }));
    const double count = spread->count(x);
    const auto [mean64, var] = moments(parts, count);
    update_running(*norm, *spread, parts, shared, count);

    const at::Tensor mean = mean64.to(at::kFloat), invstd = (var + norm->eps).rsqrt().to(at::kFloat);
    at::Tensor y = at::empty_like(x);
    const at::Tensor w = values(weight), b = values(bias);
    spread->each([&](int64_t i, const LocalGroup& group, int64_t lane) {
      const Channels stats{mean.select(0, i), invstd.select(0, i), w, b};
      (gpu ? cuda::apply : cpu::apply)(spread->slice(x, lane, group), spread->slice(y, lane, group), stats);
    });
    ctx->save_for_backward({x, weight, mean, invstd});
    ctx->saved_data["spread"] = c10::IValue::make_capsule(std::move(spread));
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &invstd = saved[3];
    const auto holder = c10::static_intrusive_pointer_cast<Spread>(ctx->saved_data["spread"].toCapsule());
    const Spread& spread = *holder;
    const bool gpu = x.is_cuda();
    const auto format = x.dim() == 4 ? x.suggest_memory_format() : at::MemoryFormat::Contiguous;
    const at::Tensor dy = grads[0].to(x.scalar_type()).contiguous(format);
    const at::Tensor w = values(weight);
    const auto stats = [&](int64_t i) { return Channels{mean.select(0, i), invstd.select(0, i), w, {}}; };

    const at::Tensor own = spread.sums(
        mean.size(1), mean.options(), [&](int64_t i, int64_t lane, int64_t count, const at::Tensor& out) {
          (gpu ? cuda::grad_sums : cpu::grad_sums)(spread.slice(dy, lane, count), spread.slice(x, lane, count),
                                                   stats(i), out);
        });
    const auto [dweight, dbias] = spread.parameter_gradients(own, invstd, weight.dim() == 2);
    const at::Tensor parts = spread.complete(own).first;

    at::Tensor dx;
    if (ctx->needs_input_grad(0)) {
      dx = at::empty_like(x);
      spread.each([&](int64_t i, const LocalGroup& group, int64_t lane) {
        (gpu ? cuda::grad : cpu::grad)(spread.slice(dy, lane, group), spread.slice(x, lane, group),
                                       spread.slice(dx, lane, group), stats(i), parts.select(0, i), spread.count(x));
      });
    }
    return {dx, dweight, dbias, at::Tensor(), at::Tensor()};
  }
};

c10::intrusive_ptr<Spread> spread_of(const Norm& norm) {
  auto spread = c10::make_intrusive<Spread>();
  spread->local.assign(norm.local, norm.local + norm.local_count);
  spread->shared_count = static_cast<int64_t>(norm.shared_count);
  spread->lanes_per_group = norm.lanes_per_group;
  spread->by_lane = norm.by_lane;
  for (const auto& group : spread->local) spread->lanes += group.lanes;
  if (norm.group != nullptr) spread->backend = norm.group->backend;
  return spread;
}

at::Tensor batch_norm(const at::Tensor& x, const Norm& norm) {
  const auto optional = [](const at::Tensor* t) { return t == nullptr ? std::nullopt : std::make_optional(*t); };
  // On the CPU only our kernels run: torch's sum in float32, and a fleet of one would differ from all others.
  const bool alone = x.is_cuda() && norm.local_count == 1 && norm.shared_count == 0;
  if (alone) {
    return at::batch_norm(x, *norm.weight, *norm.bias, optional(norm.running_mean), optional(norm.running_var),
                          /*training=*/true, norm.momentum, norm.eps, at::globalContext().userEnabledCuDNN());
  }
  const auto type = x.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16 || (x.is_cuda() && type == at::kHalf),
              "batch norm over groups of lanes takes float32 or bfloat16, not ", type);
  return GroupNorm::apply(x, *norm.weight, *norm.bias, &norm, spread_of(norm));
}

}  // namespace
}  // namespace r2o_c10d

extern "C" char* r2o_batch_norm(const at::Tensor* input, const r2o_c10d::Norm* norm, at::Tensor** out) {
  return r2o_c10d::guarded([&] { *out = new at::Tensor(r2o_c10d::batch_norm(*input, *norm)); });
}
