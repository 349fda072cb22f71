// Batch norm over groups of lanes: what norm.cpp asks of the CPU and of CUDA.
//
// `sums` are float64 tensors [2, C] on the input's device. Inputs are (N, C) or (N, C, H, W), dense in either memory
// format; gradients and results have the input's type and format. `mean` and `invstd` are float32 [C].
#pragma once

#include "shim.h"

#include <ATen/core/Tensor.h>

namespace r2o_c10d {

// src/ffi.rs has the same structures.
struct LocalGroup {
  int64_t first;   // the first local lane, counted inside the group
  int64_t lanes;   // consecutive local lanes
  int64_t shared;  // place in the all-reduced buffer, or -1 when the group is wholly here
  bool counts;     // whether this rank takes the group into the running statistics
};

struct Norm {
  const at::Tensor* weight;
  const at::Tensor* bias;
  const at::Tensor* running_mean;
  const at::Tensor* running_var;
  Group* group;
  const LocalGroup* local;
  size_t local_count;
  size_t shared_count;
  int64_t lanes_per_group;
  bool running_from_shared;
  bool by_lane;  // sums are taken lane by lane and added in the order of lanes, on every rank
  double momentum;
  double eps;
};

// A group's statistics, and the parameters.
struct Channels {
  at::Tensor mean, invstd, weight, bias;
};

namespace cpu {
// [sum x, sum x^2]
void sums(const at::Tensor& x, const at::Tensor& out);
void apply(const at::Tensor& x, const at::Tensor& y, const Channels& channels);
// [sum dy, sum dy * (x - mean)]
void grad_sums(const at::Tensor& dy, const at::Tensor& x, const Channels& channels, const at::Tensor& out);
// `sums` and `count` are those of the whole group.
void grad(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx, const Channels& channels,
          const at::Tensor& sums, double count);
}  // namespace cpu

namespace cuda {
void sums(const at::Tensor& x, const at::Tensor& out);
void apply(const at::Tensor& x, const at::Tensor& y, const Channels& channels);
void grad_sums(const at::Tensor& dy, const at::Tensor& x, const Channels& channels, const at::Tensor& out);
void grad(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx, const Channels& channels,
          const at::Tensor& sums, double count);
}  // namespace cuda

}  // namespace r2o_c10d

extern "C" char* r2o_batch_norm(const at::Tensor* input, const r2o_c10d::Norm* norm, at::Tensor** out);
