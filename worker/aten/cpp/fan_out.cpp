// One parameter as several, so that each lane has a gradient of its own, which are added up in float64.

#include "shim.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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
        sum.add_(grad);
      } else {
        sum = grad.to(at::kDouble);
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
