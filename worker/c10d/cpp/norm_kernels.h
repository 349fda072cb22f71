// Element kernels of the batch norm, the same for each kind of processor. Pointers and numbers only: the file that
// implements them is compiled with wider instructions, so no inline function of another header may come from it.
//
// `rows` kernels walk channels_last memory (rows of `channels` values); `plane` kernels one channel's plane of an image.
#pragma once

#include <cstdint>

namespace r2o_c10d {

// float, or bfloat16 as its bits.
template <class T>
struct NormKernels {
  // sum[c] += x, square[c] += x * x.
  void (*sum_rows)(const T* x, int64_t rows, int64_t channels, double* sum, double* square);
  void (*sum_plane)(const T* x, int64_t size, double* sum, double* square);
  // y = (x - mean) * scale + bias: not x * scale + shift, which cancels where the mean is large.
  void (*apply_rows)(const T* x, T* y, int64_t rows, int64_t channels, const float* mean, const float* scale,
                     const float* bias);
  void (*apply_plane)(const T* x, T* y, int64_t size, float mean, float scale, float bias);
  // sum[c] += dy, product[c] += dy * (x - mean).
  void (*grad_sum_rows)(const T* dy, const T* x, int64_t rows, int64_t channels, const float* mean, double* sum,
                        double* product);
  void (*grad_sum_plane)(const T* dy, const T* x, int64_t size, float mean, double* sum, double* product);
  // dx = dy * a + (x - mean) * b + c.
  void (*grad_rows)(const T* dy, const T* x, T* dx, int64_t rows, int64_t channels, const float* mean, const float* a,
                    const float* b, const float* c);
  void (*grad_plane)(const T* dy, const T* x, T* dx, int64_t size, float mean, float a, float b, float c);
};

struct NormKernelSet {
  NormKernels<float> f32;
  NormKernels<uint16_t> bf16;
};

}  // namespace r2o_c10d

extern "C" {
extern const r2o_c10d::NormKernelSet r2o_norm_avx512;
extern const r2o_c10d::NormKernelSet r2o_norm_avx2;
extern const r2o_c10d::NormKernelSet r2o_norm_base;
}
