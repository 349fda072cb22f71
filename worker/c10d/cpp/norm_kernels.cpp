// Compiled once per level (build.rs). Sums are kept in float64: a one-pass variance in float32 cancels where the mean is
// large beside the deviation.

#include "norm_kernels.h"

#define R2O_JOIN_(a, b) a##b
#define R2O_JOIN(a, b) R2O_JOIN_(a, b)

namespace {

inline float load(const float* p) { return *p; }
inline void store(float* p, float v) { *p = v; }

inline float load(const uint16_t* p) {
  const uint32_t bits = static_cast<uint32_t>(*p) << 16;
  float v;
  __builtin_memcpy(&v, &bits, sizeof v);
  return v;
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline void store(uint16_t* p, float v) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  *p = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

// Rows taken together, so that the accumulators are loaded and stored once per kRows values.
constexpr int kRows = 4;

template <class T>
void sum_rows(const T* __restrict x, int64_t rows, int64_t channels, double* __restrict sum,
              double* __restrict square) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    const T* p = x + r * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const double v0 = load(p + c), v1 = load(p + channels + c);
      const double v2 = load(p + 2 * channels + c), v3 = load(p + 3 * channels + c);
      sum[c] += (v0 + v1) + (v2 + v3);
      square[c] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3);
    }
  }
  for (; r < rows; ++r) {
    const T* p = x + r * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const double v = load(p + c);
      sum[c] += v;
      square[c] += v * v;
    }
  }
}

template <class T>
void sum_plane(const T* __restrict x, int64_t size, double* sum, double* square) {
  double s = 0, q = 0;
  for (int64_t i = 0; i < size; ++i) {
    const double v = load(x + i);
    s += v;
    q += v * v;
  }
  *sum += s;
  *square += q;
}

template <class T>
void apply_rows(const T* __restrict x, T* __restrict y, int64_t rows, int64_t channels, const float* __restrict mean,
                const float* __restrict scale, const float* __restrict bias) {
  for (int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    for (int64_t c = 0; c < channels; ++c) store(y + c, (load(x + c) - mean[c]) * scale[c] + bias[c]);
  }
}

template <class T>
void apply_plane(const T* __restrict x, T* __restrict y, int64_t size, float mean, float scale, float bias) {
  for (int64_t i = 0; i < size; ++i) store(y + i, (load(x + i) - mean) * scale + bias);
}

template <class T>
void grad_sum_rows(const T* __restrict dy, const T* __restrict x, int64_t rows, int64_t channels,
                   const float* __restrict mean, double* __restrict sum, double* __restrict product) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    const T* p = x + r * channels;
    const T* d = dy + r * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const double m = mean[c];
      const double d0 = load(d + c), d1 = load(d + channels + c);
      const double d2 = load(d + 2 * channels + c), d3 = load(d + 3 * channels + c);
      sum[c] += (d0 + d1) + (d2 + d3);
      product[c] += (d0 * (load(p + c) - m) + d1 * (load(p + channels + c) - m)) +
                    (d2 * (load(p + 2 * channels + c) - m) + d3 * (load(p + 3 * channels + c) - m));
    }
  }
  for (; r < rows; ++r) {
    const T* p = x + r * channels;
    const T* d = dy + r * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const double v = load(d + c);
      sum[c] += v;
      product[c] += v * (load(p + c) - static_cast<double>(mean[c]));
    }
  }
}

template <class T>
void grad_sum_plane(const T* __restrict dy, const T* __restrict x, int64_t size, float mean, double* sum,
                    double* product) {
  double s = 0, q = 0;
  for (int64_t i = 0; i < size; ++i) {
    const double d = load(dy + i);
    s += d;
    q += d * (load(x + i) - static_cast<double>(mean));
  }
  *sum += s;
  *product += q;
}

template <class T>
void grad_rows(const T* __restrict dy, const T* __restrict x, T* __restrict dx, int64_t rows, int64_t channels,
               const float* __restrict mean, const float* __restrict a, const float* __restrict b,
               const float* __restrict c0) {
  for (int64_t r = 0; r < rows; ++r, dy += channels, x += channels, dx += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      store(dx + c, load(dy + c) * a[c] + (load(x + c) - mean[c]) * b[c] + c0[c]);
    }
  }
}

template <class T>
void grad_plane(const T* __restrict dy, const T* __restrict x, T* __restrict dx, int64_t size, float mean, float a,
                float b, float c0) {
  for (int64_t i = 0; i < size; ++i) store(dx + i, load(dy + i) * a + (load(x + i) - mean) * b + c0);
}

template <class T>
constexpr r2o_c10d::NormKernels<T> kernels() {
  return {sum_rows<T>,      sum_plane<T>,      apply_rows<T>, apply_plane<T>,
          grad_sum_rows<T>, grad_sum_plane<T>, grad_rows<T>,  grad_plane<T>};
}

}  // namespace

extern "C" {
constexpr r2o_c10d::NormKernelSet R2O_JOIN(r2o_norm_, R2O_LEVEL) = {kernels<float>(), kernels<uint16_t>()};
}
