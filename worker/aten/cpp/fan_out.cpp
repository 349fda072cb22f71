// One parameter as several, so that each lane has a gradient of its own, which are added up exactly.
//
// Float64 adds multiples of one unit exactly, in any order, as long as no sum reaches 2^53 units. So each float32 gradient
// is cut into two parts with fixed units, coarse and fine, which add up apart from each other.

#include "shim.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Sums of coarse parts stay exact below 2^29; fine parts are below 2^-25, and 2^12 of them add up exactly.
constexpr double kCoarse = 0x1p-24, kFine = 0x1p-66;

at::Tensor multiple(const at::Tensor& value, double unit) { return value.div(unit).round_().mul_(unit); }

// The two parts [2, ...] of float32 values; what is left over, less than 2^-67, counts as zero.
at::Tensor cut(const at::Tensor& value) {
  const at::Tensor wide = value.to(at::kDouble), coarse = multiple(wide, kCoarse);
  return at::stack({coarse, multiple(wide.sub(coarse), kFine)});
}

struct FanOut : torch::autograd::Function<FanOut> {
  static variable_list forward(AutogradContext*, const at::Tensor&, const at::Tensor& value, int64_t lanes) {
    variable_list copies;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      // Not a view for autograd: the memory is shared, the history is not.
      copies.push_back(
          at::empty({0}, value.options().requires_grad(false))
              .set_(value.storage(), value.storage_offset(), value.sizes(), value.strides()));
    }
    return copies;
  }

  static variable_list backward(AutogradContext*, const variable_list& grads) {
    at::Tensor sum;
    for (const at::Tensor& grad : grads) {
      if (!grad.defined()) continue;
      if (sum.defined()) {
        sum.add_(cut(grad));
      } else {
        sum = cut(grad);
      }
    }
    return {sum, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

extern "C" char* r2o_aten_fan_out(const at::Tensor* leaf, const at::Tensor* value, size_t lanes, at::Tensor** out) {
  return r2o::guarded([&] {
    const auto copies = FanOut::apply(*leaf, value->detach(), static_cast<int64_t>(lanes));
    for (size_t i = 0; i < lanes; ++i) out[i] = new at::Tensor(copies[i]);
  });
}
