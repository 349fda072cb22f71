// Updates over many tensors at once: LARS and the moving average, with few launches on a GPU and few passes over memory
// on a CPU.

#include "shim.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

using r2o::borrow;
using r2o::guarded;

namespace {

// Values per task. Sums are cut into these whatever the number of threads, so results do not depend on it.
constexpr int64_t kBlock = 1 << 15;

struct Block {
  size_t tensor;
  int64_t begin, end;
};

std::vector<Block> blocks_of(const std::vector<at::Tensor>& tensors) {
  std::vector<Block> blocks;
  for (size_t t = 0; t < tensors.size(); ++t) {
    for (int64_t begin = 0; begin < tensors[t].numel(); begin += kBlock) {
      blocks.push_back({t, begin, std::min(begin + kBlock, tensors[t].numel())});
    }
  }
  return blocks;
}

template <class F>
void each_block(const std::vector<Block>& blocks, F&& body) {
  at::parallel_for(0, static_cast<int64_t>(blocks.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, blocks[i]);
  });
}

double sum_of_squares(const float* x, int64_t count) {
  // Eight sums, so that the compiler may use wide registers; their order is fixed.
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

bool plain(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.is_non_overlapping_and_dense();
}

bool same_layout(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!plain(a[i]) || !plain(b[i]) || a[i].strides() != b[i].strides() || a[i].sizes() != b[i].sizes()) return false;
  }
  return true;
}

std::vector<double> cpu_norms(const std::vector<at::Tensor>& tensors) {
  const auto blocks = blocks_of(tensors);
  std::vector<double> partial(blocks.size()), norms(tensors.size(), 0.0);
  each_block(blocks, [&](int64_t i, const Block& b) {
    partial[i] = sum_of_squares(tensors[b.tensor].const_data_ptr<float>() + b.begin, b.end - b.begin);
  });
  for (size_t i = 0; i < blocks.size(); ++i) norms[blocks[i].tensor] += partial[i];
  for (double& norm : norms) norm = std::sqrt(norm);
  return norms;
}

// A gradient in its parameter's memory order (the same strides, so that one index addresses both).
at::Tensor like(const at::Tensor& grad, const at::Tensor& param) {
  if (grad.strides() == param.strides() && grad.scalar_type() == param.scalar_type()) return grad;
  auto out = at::empty_strided(param.sizes(), param.strides(), param.options().requires_grad(false));
  out.copy_(grad);
  return out;
}

void lars_cpu(std::vector<at::Tensor>& params, const std::vector<at::Tensor>& grads, std::vector<at::Tensor>& momenta,
              const bool* adapt, const R2oLars& o) {
  const auto weight_norms = cpu_norms(params), grad_norms = cpu_norms(grads);
  std::vector<float> ratio(params.size(), 1.0f);
  for (size_t i = 0; i < params.size(); ++i) {
    const double w = weight_norms[i], g = grad_norms[i];
    if (adapt[i] && w > 0 && g > 0) ratio[i] = static_cast<float>(o.trust * w / (g + o.weight_decay * w));
  }
  const float rate = static_cast<float>(o.learning_rate), keep = static_cast<float>(o.momentum);
  each_block(blocks_of(params), [&](int64_t, const Block& b) {
    const size_t t = b.tensor;
    float* p = params[t].data_ptr<float>();
    float* m = momenta[t].data_ptr<float>();
    const float* g = grads[t].const_data_ptr<float>();
    const float decay = adapt[t] ? static_cast<float>(o.weight_decay) : 0.0f;
    const float scale = ratio[t];
    for (int64_t i = b.begin; i < b.end; ++i) {
      m[i] = keep * m[i] + rate * (scale * (g[i] + decay * p[i]));
      p[i] -= m[i];
    }
  });
}

void lars_foreach(std::vector<at::Tensor>& params, const std::vector<at::Tensor>& grads,
                  std::vector<at::Tensor>& momenta, const bool* adapt, const R2oLars& o) {
  std::vector<at::Tensor> adapted, update;
  std::vector<at::Tensor> updates(params.size());
  std::vector<size_t> index;
  for (size_t i = 0; i < params.size(); ++i) {
    if (adapt[i]) {
      index.push_back(i);
      adapted.push_back(params[i]);
      update.push_back(grads[i]);
    } else {
      updates[i] = grads[i];
    }
  }
  if (!index.empty()) {
    const auto weights = at::stack(at::_foreach_norm(adapted, 2)), norms = at::stack(at::_foreach_norm(update, 2));
    const auto raw = o.trust * weights / (norms + o.weight_decay * weights);
    const auto ratio = at::where((weights > 0).logical_and(norms > 0), raw, at::ones_like(raw));
    auto scaled = at::_foreach_add(update, adapted, o.weight_decay);
    at::_foreach_mul_(scaled, ratio.unbind());
    for (size_t j = 0; j < index.size(); ++j) updates[index[j]] = scaled[j];
  }
  at::_foreach_mul_(momenta, o.momentum);
  at::_foreach_add_(momenta, updates, o.learning_rate);
  at::_foreach_sub_(params, momenta);
}

}  // namespace

extern "C" {

char* r2o_aten_norms(at::Tensor* const* tensors, size_t count, at::Tensor** out) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const auto list = borrow(tensors, count);
    if (count == 0) {
      *out = new at::Tensor(at::empty({0}, at::kDouble));
    } else if (std::all_of(list.begin(), list.end(), plain)) {
      const auto norms = cpu_norms(list);
      *out = new at::Tensor(at::tensor(norms, at::kDouble));
    } else {
      *out = new at::Tensor(at::stack(at::_foreach_norm(list, 2)).to(at::kCPU, at::kDouble));
    }
  });
}

char* r2o_aten_lars(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* momenta, const bool* adapt,
                    size_t count, const R2oLars* options) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto p = borrow(params, count), g = borrow(grads, count), m = borrow(momenta, count);
    for (size_t i = 0; i < count; ++i) {
      TORCH_CHECK(g[i].defined(), "parameter ", i, " has no gradient");
      TORCH_CHECK(g[i].sizes() == p[i].sizes() && m[i].sizes() == p[i].sizes(), "parameter ", i, " is ", p[i].sizes(),
                  ", its gradient ", g[i].sizes(), ", its momentum ", m[i].sizes());
      g[i] = like(g[i], p[i]);
    }
    if (same_layout(p, m) && same_layout(p, g)) {
      lars_cpu(p, g, m, adapt, *options);
    } else if (count > 0) {
      lars_foreach(p, g, m, adapt, *options);
    }
  });
}

char* r2o_aten_lerp(at::Tensor* const* to, at::Tensor* const* from, size_t count, double weight) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const auto a = borrow(to, count), b = borrow(from, count);
    if (!same_layout(a, b)) {
      if (count > 0) at::_foreach_lerp_(a, b, weight);
      return;
    }
    const float w = static_cast<float>(weight), keep = static_cast<float>(1.0 - weight);
    each_block(blocks_of(a), [&](int64_t, const Block& block) {
      float* x = a[block.tensor].data_ptr<float>();
      const float* y = b[block.tensor].const_data_ptr<float>();
      for (int64_t i = block.begin; i < block.end; ++i) x[i] = keep * x[i] + w * y[i];
    });
  });
}
}
