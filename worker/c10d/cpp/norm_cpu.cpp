// The CPU side of the batch norm: splits the work over libtorch's threads and picks the kernels for the processor.
// Results do not depend on the number of threads: sums are cut into the same blocks and added in order.

#include "norm.h"
#include "norm_kernels.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

namespace r2o_c10d::cpu {
namespace {

const NormKernelSet& kernels() {
  static const NormKernelSet& chosen = [&]() -> const NormKernelSet& {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      return r2o_norm_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return r2o_norm_avx2;
    return r2o_norm_base;
  }();
  return chosen;
}

template <class T>
const NormKernels<T>& kernels_for();
template <>
const NormKernels<float>& kernels_for<float>() {
  return kernels().f32;
}
template <>
const NormKernels<uint16_t>& kernels_for<uint16_t>() {
  return kernels().bf16;
}

// Values that make a task worth a thread.
constexpr int64_t kGrain = 32768;
constexpr int64_t kMaxBlocks = 64;

// How a dense (N, C) or (N, C, H, W) tensor lies in memory.
struct View {
  int64_t images, channels, plane;
  bool rows;  // channels vary fastest

  explicit View(const at::Tensor& x) : images(x.size(0)), channels(x.size(1)), plane(1), rows(true) {
    if (x.dim() == 4) {
      plane = x.size(2) * x.size(3);
      rows = x.is_contiguous(at::MemoryFormat::ChannelsLast);
    }
  }
  int64_t row_count() const { return images * plane; }
  int64_t block_count() const {
    return std::clamp<int64_t>(row_count() * channels / kGrain, 1, std::min(kMaxBlocks, std::max<int64_t>(1, row_count())));
  }
  int64_t channel_grain() const { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_count())); }
};

template <class F>
void typed(const at::Tensor& x, F&& body) {
  if (x.scalar_type() == at::kFloat) {
    body(float{});
  } else {
    body(uint16_t{});
  }
}

template <class T>
T* data(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

// Runs body(first row, rows, sum[C], other[C]) over blocks and adds the blocks up in order.
template <class F>
void sum_blocks(const View& view, double* out, F&& body) {
  const int64_t blocks = view.block_count(), width = 2 * view.channels, rows = view.row_count();
  std::vector<double> partial(blocks * width, 0.0);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = rows * block / blocks, last = rows * (block + 1) / blocks;
      double* sum = partial.data() + block * width;
      body(first, last - first, sum, sum + view.channels);
    }
  });
  std::fill(out, out + width, 0.0);
  for (int64_t block = 0; block < blocks; ++block) {
    const double* from = partial.data() + block * width;
    for (int64_t i = 0; i < width; ++i) out[i] += from[i];
  }
}

// Runs body(channel, offset of a plane) for all planes, channel by channel.
template <class F>
void each_plane(const View& view, F&& body) {
  at::parallel_for(0, view.channels, view.channel_grain(), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t n = 0; n < view.images; ++n) body(c, (n * view.channels + c) * view.plane);
    }
  });
}

// Runs body(offset, rows) over blocks of rows.
template <class F>
void each_block(const View& view, F&& body) {
  const int64_t grain = std::max<int64_t>(1, kGrain / view.channels);
  at::parallel_for(0, view.row_count(), grain,
                   [&](int64_t begin, int64_t end) { body(begin * view.channels, end - begin); });
}

}  // namespace

void sums(const at::Tensor& x, const at::Tensor& out) {
  typed(x, [&](auto tag) {
    using T = decltype(tag);
    const View view(x);
    const auto& k = kernels_for<T>();
    const T* in = data<T>(x);
    double* sum = data<double>(out);
    if (view.rows) {
      sum_blocks(view, sum, [&](int64_t first, int64_t rows, double* s, double* q) {
        k.sum_rows(in + first * view.channels, rows, view.channels, s, q);
      });
      return;
    }
    std::fill(sum, sum + 2 * view.channels, 0.0);
    each_plane(view, [&](int64_t c, int64_t at) { k.sum_plane(in + at, view.plane, sum + c, sum + view.channels + c); });
  });
}

void apply(const at::Tensor& x, const at::Tensor& y, const Channels& channels) {
  const at::Tensor scale = channels.weight * channels.invstd;
  const float *m = data<float>(channels.mean), *a = data<float>(scale), *b = data<float>(channels.bias);
  typed(x, [&](auto tag) {
    using T = decltype(tag);
    const View view(x);
    const auto& k = kernels_for<T>();
    const T* in = data<T>(x);
    T* out = data<T>(y);
    if (view.rows) {
      each_block(view, [&](int64_t at, int64_t rows) { k.apply_rows(in + at, out + at, rows, view.channels, m, a, b); });
    } else {
      each_plane(view, [&](int64_t c, int64_t at) { k.apply_plane(in + at, out + at, view.plane, m[c], a[c], b[c]); });
    }
  });
}

void grad_sums(const at::Tensor& dy, const at::Tensor& x, const Channels& channels, const at::Tensor& out) {
  const float* mean = data<float>(channels.mean);
  typed(x, [&](auto tag) {
    using T = decltype(tag);
    const View view(x);
    const auto& k = kernels_for<T>();
    const T *in = data<T>(x), *d = data<T>(dy);
    double* sum = data<double>(out);
    if (view.rows) {
      sum_blocks(view, sum, [&](int64_t first, int64_t rows, double* s, double* q) {
        const int64_t at = first * view.channels;
        k.grad_sum_rows(d + at, in + at, rows, view.channels, mean, s, q);
      });
      return;
    }
    std::fill(sum, sum + 2 * view.channels, 0.0);
    each_plane(view, [&](int64_t c, int64_t at) {
      k.grad_sum_plane(d + at, in + at, view.plane, mean[c], sum + c, sum + view.channels + c);
    });
  });
}

void grad(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx, const Channels& channels,
          const at::Tensor& sums, double count) {
  // dx = w * invstd * (dy - sum_dy / n - (x - mean) * invstd^2 * sum_dy_xmu / n)
  const at::Tensor invstd = channels.invstd.to(at::kDouble);
  const at::Tensor scale64 = channels.weight.to(at::kDouble) * invstd;
  const at::Tensor scale = scale64.to(at::kFloat);
  const at::Tensor slope = (scale64 * invstd * invstd * sums.select(0, 1) / -count).to(at::kFloat);
  const at::Tensor shift = (scale64 * sums.select(0, 0) / -count).to(at::kFloat);
  const float *mean = data<float>(channels.mean), *a = data<float>(scale), *b = data<float>(slope),
              *c0 = data<float>(shift);
  typed(x, [&](auto tag) {
    using T = decltype(tag);
    const View view(x);
    const auto& k = kernels_for<T>();
    const T *in = data<T>(x), *d = data<T>(dy);
    T* out = data<T>(dx);
    if (view.rows) {
      each_block(view, [&](int64_t at, int64_t rows) {
        k.grad_rows(d + at, in + at, out + at, rows, view.channels, mean, a, b, c0);
      });
    } else {
      each_plane(view, [&](int64_t c, int64_t at) {
        k.grad_plane(d + at, in + at, out + at, view.plane, mean[c], a[c], b[c], c0[c]);
      });
    }
  });
}

}  // namespace r2o_c10d::cpu
