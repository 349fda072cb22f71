// The CUDA side of the batch norm: torch's fused kernels, those of nn.SyncBatchNorm. Dispatched at run time, so this
// file needs no CUDA to build.

#include "norm.h"

#include <ATen/ops/batch_norm_backward_elemt.h>
#include <ATen/ops/batch_norm_backward_reduce.h>
#include <ATen/ops/batch_norm_elemt.h>
#include <ATen/ops/batch_norm_stats.h>
#include <ATen/ops/full.h>

#include <tuple>

namespace r2o_c10d::cuda {

void sums(const at::Tensor& x, const at::Tensor& out) {
  // Welford's mean and 1/sqrt(var + eps), in float32, turned into sums that add up over ranks.
  constexpr double eps = 1e-12;
  const auto [mean32, invstd32] = at::batch_norm_stats(x, eps);
  const double count = static_cast<double>(x.numel() / x.size(1));
  const at::Tensor mean = mean32.to(at::kDouble);
  const at::Tensor var = invstd32.to(at::kDouble).pow(-2).sub(eps).clamp_min(0);
  out.select(0, 0).copy_(mean * count);
  out.select(0, 1).copy_((var + mean * mean) * count);
}

void apply(const at::Tensor& x, const at::Tensor& y, const Channels& channels) {
  y.copy_(at::batch_norm_elemt(x, channels.weight, channels.bias, channels.mean, channels.invstd, /*eps=*/0.0));
}

void grad_sums(const at::Tensor& dy, const at::Tensor& x, const Channels& channels, const at::Tensor& out) {
  const auto reduced = at::batch_norm_backward_reduce(dy, x, channels.mean, channels.invstd, channels.weight,
                                                      /*input_g=*/true, /*weight_g=*/false, /*bias_g=*/false);
  out.select(0, 0).copy_(std::get<0>(reduced));
  out.select(0, 1).copy_(std::get<1>(reduced));
}

void grad(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx, const Channels& channels,
          const at::Tensor& sums, double count) {
  const at::Tensor sum_dy = sums.select(0, 0).to(at::kFloat);
  const at::Tensor sum_dy_xmu = sums.select(0, 1).to(at::kFloat);
  const at::Tensor counts = at::full({1}, static_cast<int64_t>(count), sum_dy.options().dtype(at::kInt));
  dx.copy_(at::batch_norm_backward_elemt(dy, x, channels.mean, channels.invstd, channels.weight, sum_dy, sum_dy_xmu,
                                         counts));
}

}  // namespace r2o_c10d::cuda
