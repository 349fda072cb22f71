// K-means on a CPU, all of it: k-means++ with greedy candidates (Arthur and Vassilvitskii, 2007; 2 + ln K candidates as in
// scikit-learn) and Lloyd's iterations. Distances come from one matrix product per iteration, which covers only the
// clusters whose members changed; results do not depend on the number of threads.

#include "shim.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

using r2o::guarded;

// The same loop for several kinds of processor; the loader picks one.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define R2O_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define R2O_CLONES
#endif

namespace {

// Points of a task. Sums are cut into these whatever the number of threads.
constexpr int64_t kBlock = 512;
constexpr int64_t kChannels = 128;

int64_t block_count(int64_t n) { return (n + kBlock - 1) / kBlock; }

template <class F>
void each_block(int64_t n, F&& body) {
  at::parallel_for(0, block_count(n), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) body(b, b * kBlock, std::min(n, (b + 1) * kBlock));
  });
}

R2O_CLONES double squares(const float* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

// Lowers the distances of points begin..end to a candidate's; returns their sum. `out` may be `nearest`.
R2O_CLONES double lower(const float* dots, const float* norms, float norm, const float* nearest, float* out,
                        int64_t begin, int64_t end) {
  double sum = 0;
  for (int64_t i = begin; i < end; ++i) {
    const float distance = std::max(0.0f, norms[i] + norm - 2.0f * dots[i]);
    out[i] = std::min(nearest[i], distance);
    sum += out[i];
  }
  return sum;
}

// The nearest centre of points begin..end, ties to the lowest.
R2O_CLONES void nearest_centres(const float* dots, int64_t stride, const float* norms, int64_t clusters, int64_t begin,
                                int64_t end, float* best, int32_t* label) {
  const int64_t count = end - begin;
  for (int64_t i = 0; i < count; ++i) {
    best[i] = std::numeric_limits<float>::infinity();
    label[i] = 0;
  }
  for (int64_t k = 0; k < clusters; ++k) {
    const float* row = dots + k * stride + begin;
    const float norm = norms[k];
    const int32_t number = static_cast<int32_t>(k);
    for (int64_t i = 0; i < count; ++i) {
      const float distance = norm - 2.0f * row[i];
      const bool closer = distance < best[i];
      best[i] = closer ? distance : best[i];
      label[i] = closer ? number : label[i];
    }
  }
}

R2O_CLONES void add_row(double* sum, const float* row, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sum[i] += row[i];
}

struct Lane {
  at::Tensor points;  // (n, C)
  int64_t n, channels;
  const float* data;
  std::vector<float> norms;  // squared

  explicit Lane(at::Tensor x) : points(std::move(x)), n(points.size(0)), channels(points.size(1)) {
    data = points.const_data_ptr<float>();
    norms.resize(n);
    each_block(n, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) norms[i] = static_cast<float>(squares(data + i * channels, channels));
    });
  }
};

// A point by a number in [0, 1), with probability proportional to its distance; any point where all distances are 0.
int64_t draw(const std::vector<double>& cumulative, double uniform) {
  const int64_t n = static_cast<int64_t>(cumulative.size());
  const double total = cumulative.back();
  if (!(total > 0)) return std::min(n - 1, static_cast<int64_t>(uniform * static_cast<double>(n)));
  const auto found = std::upper_bound(cumulative.begin(), cumulative.end(), uniform * total);
  return std::min<int64_t>(n - 1, found - cumulative.begin());
}

// k-means++: indices of the chosen points.
std::vector<int64_t> choose_centres(const Lane& lane, const double* uniforms, int64_t clusters, int64_t candidates) {
  const int64_t n = lane.n, blocks = block_count(n);
  std::vector<float> nearest(n, std::numeric_limits<float>::max());
  std::vector<float> lowered(candidates * n);
  std::vector<double> cumulative(n), partial(candidates * blocks);
  std::vector<int64_t> chosen(clusters), drawn(candidates);
  for (int64_t k = 0; k < clusters; ++k) {
    const int64_t tried = k == 0 ? 1 : candidates;
    if (k == 0) {
      drawn[0] = std::min(n - 1, static_cast<int64_t>(uniforms[0] * static_cast<double>(n)));
    } else {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) cumulative[i] = sum += nearest[i];
      for (int64_t t = 0; t < tried; ++t) drawn[t] = draw(cumulative, uniforms[k * candidates + t]);
    }
    const auto index = at::from_blob(drawn.data(), {tried}, at::kLong);
    const auto dots = at::mm(lane.points.index_select(0, index), lane.points.t()).contiguous();
    const float* product = dots.const_data_ptr<float>();
    each_block(n, [&](int64_t b, int64_t begin, int64_t end) {
      for (int64_t t = 0; t < tried; ++t) {
        partial[t * blocks + b] = lower(product + t * n, lane.norms.data(), lane.norms[drawn[t]], nearest.data(),
                                        lowered.data() + t * n, begin, end);
      }
    });
    int64_t best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (int64_t t = 0; t < tried; ++t) {
      const double potential = std::accumulate(partial.begin() + t * blocks, partial.begin() + (t + 1) * blocks, 0.0);
      if (potential < least) {
        least = potential;
        best = t;
      }
    }
    chosen[k] = drawn[best];
    std::copy_n(lowered.begin() + best * n, n, nearest.begin());
  }
  return chosen;
}

// Lloyd's iterations.
class Lloyd {
 public:
  Lloyd(const Lane& lane, at::Tensor centres)
      : lane_(lane), clusters_(centres.size(0)), centres_(std::move(centres)), norms_(clusters_), label_(lane.n, -1),
        before_(lane.n, -1), best_(lane.n), order_(lane.n), start_(clusters_ + 1), moved_(clusters_) {
    std::iota(moved_.begin(), moved_.end(), 0);
    dots_ = at::empty({clusters_, lane.n}, centres_.options());
  }

  // Returns (inertia, iterations).
  std::pair<double, int64_t> run(int64_t most, double tolerance) {
    double previous = std::numeric_limits<double>::infinity(), inertia = previous;
    int64_t iteration = 0;
    while (iteration < most) {
      inertia = assign();
      ++iteration;
      if (std::abs(inertia - previous) < tolerance || iteration == most) break;
      previous = inertia;
      update();
    }
    return {inertia, iteration};
  }

  const std::vector<int32_t>& labels() const { return label_; }

 private:
  float* centre(int64_t k) { return centres_.data_ptr<float>() + k * lane_.channels; }

  // Products of the centres that moved with all points.
  void multiply() {
    const int64_t count = static_cast<int64_t>(moved_.size());
    for (int64_t k : moved_) norms_[k] = static_cast<float>(squares(centre(k), lane_.channels));
    if (count == clusters_) {
      at::mm_out(dots_, centres_, lane_.points.t());
    } else if (count > 0) {
      const auto index = at::from_blob(moved_.data(), {count}, at::kLong);
      dots_.index_copy_(0, index, at::mm(centres_.index_select(0, index), lane_.points.t()));
    }
  }

  double assign() {
    multiply();
    std::swap(label_, before_);
    std::vector<double> partial(block_count(lane_.n), 0.0);
    const float* dots = dots_.const_data_ptr<float>();
    each_block(lane_.n, [&](int64_t b, int64_t begin, int64_t end) {
      nearest_centres(dots, lane_.n, norms_.data(), clusters_, begin, end, best_.data() + begin, label_.data() + begin);
      double sum = 0;
      for (int64_t i = begin; i < end; ++i) sum += std::max(0.0f, best_[i] + lane_.norms[i]);
      partial[b] = sum;
    });
    return std::accumulate(partial.begin(), partial.end(), 0.0);
  }

  // Points by cluster, and which clusters' members changed.
  void sort() {
    std::vector<char> changed(clusters_, 0);
    std::fill(start_.begin(), start_.end(), 0);
    for (int64_t i = 0; i < lane_.n; ++i) {
      ++start_[label_[i] + 1];
      if (label_[i] != before_[i]) {
        changed[label_[i]] = 1;
        if (before_[i] >= 0) changed[before_[i]] = 1;
      }
    }
    std::partial_sum(start_.begin(), start_.end(), start_.begin());
    std::vector<int64_t> next(start_.begin(), start_.end() - 1);
    for (int64_t i = 0; i < lane_.n; ++i) order_[next[label_[i]]++] = i;
    moved_.clear();
    // An empty cluster keeps its centre.
    for (int64_t k = 0; k < clusters_; ++k) {
      if (changed[k] && start_[k] < start_[k + 1]) moved_.push_back(k);
    }
  }

  void update() {
    sort();
    const int64_t parts = (lane_.channels + kChannels - 1) / kChannels;
    at::parallel_for(0, static_cast<int64_t>(moved_.size()) * parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) mean(moved_[task / parts], task % parts * kChannels);
    });
  }

  void mean(int64_t k, int64_t from) {
    const int64_t width = std::min(kChannels, lane_.channels - from);
    double sum[kChannels] = {};
    for (int64_t i = start_[k]; i < start_[k + 1]; ++i) {
      add_row(sum, lane_.data + order_[i] * lane_.channels + from, width);
    }
    const double members = static_cast<double>(start_[k + 1] - start_[k]);
    for (int64_t c = 0; c < width; ++c) centre(k)[from + c] = static_cast<float>(sum[c] / members);
  }

  const Lane& lane_;
  int64_t clusters_;
  at::Tensor centres_, dots_;  // (K, C), (K, n)
  std::vector<float> norms_;
  std::vector<int32_t> label_, before_;
  std::vector<float> best_;
  std::vector<int64_t> order_, start_, moved_;
};

}  // namespace

extern "C" char* r2o_aten_kmeans(const at::Tensor* points, const at::Tensor* regions, const at::Tensor* centres,
                                 const at::Tensor* uniforms, int64_t clusters, int64_t max_iterations, double tolerance,
                                 at::Tensor** labels, at::Tensor** inertia, at::Tensor** iterations) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    TORCH_CHECK(points->dim() == 4 && points->is_cpu() && points->scalar_type() == at::kFloat, "points are (L,B,S,C)");
    const int64_t lanes = points->size(0), images = points->size(1), most = points->size(2), channels = points->size(3);
    const int64_t candidates = centres == nullptr ? uniforms->size(2) : 0;
    auto out = at::full({lanes, images, most}, -1, at::kLong);
    auto sums = at::zeros({lanes}, at::kDouble);
    auto counts = at::zeros({lanes}, at::kLong);
    for (int64_t l = 0; l < lanes; ++l) {
      const int64_t width = regions->const_data_ptr<int64_t>()[l];
      TORCH_CHECK(0 < width && width <= most, "lane ", l, " has ", width, " regions, points for ", most);
      Lane lane(points->select(0, l).narrow(1, 0, width).reshape({images * width, channels}).contiguous());
      at::Tensor start;
      if (centres != nullptr) {
        start = centres->select(0, l).clone();
      } else {
        const double* uniform = uniforms->const_data_ptr<double>() + l * clusters * candidates;
        const auto chosen = choose_centres(lane, uniform, clusters, candidates);
        start = lane.points.index_select(0, at::tensor(chosen, at::kLong));
      }
      Lloyd lloyd(lane, start.contiguous());
      const auto [sum, count] = lloyd.run(max_iterations, tolerance);
      int64_t* to = out.select(0, l).data_ptr<int64_t>();
      for (int64_t i = 0; i < lane.n; ++i) to[i / width * most + i % width] = lloyd.labels()[i];
      sums.data_ptr<double>()[l] = sum;
      counts.data_ptr<int64_t>()[l] = count;
    }
    *labels = new at::Tensor(out);
    *inertia = new at::Tensor(sums);
    *iterations = new at::Tensor(counts);
  });
}
