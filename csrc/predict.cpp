#include "predict.h"

#include <ATen/Dispatch.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace rdpp {

using torch::Tensor;

namespace {

// mean_of_highest is the mean of the n highest of count values, NaN where there is one. Most of the values are below a
// level that a sample of them tells, and are passed by: topk takes several times as long.
template <typename T> double mean_of_highest(const T *values, int64_t count, int64_t n) {
  constexpr int64_t kStep = 31; // of the sample: odd, to meet the networks' positions everywhere
  std::vector<T> some;
  for (int64_t i = 0; i < count; i += kStep) some.push_back(values[i]);
  // Twice the share of the sample that is asked for, and a few more: seldom fewer than n values are above that.
  int64_t rank = 2 * (n / kStep) + 8;
  T level = -std::numeric_limits<T>::infinity();
  auto none = [](T v) { return std::isnan(v); };
  if (rank < static_cast<int64_t>(some.size()) && std::none_of(some.begin(), some.end(), none)) {
    std::nth_element(some.begin(), some.begin() + rank, some.end(), std::greater<T>());
    level = some[rank];
  }
  auto above = [&] {
    some.clear();
    for (int64_t i = 0; i < count; i++) {
      if (!(values[i] < level)) some.push_back(values[i]);
    }
  };
  above();
  if (static_cast<int64_t>(some.size()) < n) {
    level = -std::numeric_limits<T>::infinity();
    above();
  }
  if (std::any_of(some.begin(), some.end(), none)) return std::numeric_limits<double>::quiet_NaN();
  std::nth_element(some.begin(), some.begin() + (n - 1), some.end(), std::greater<T>());
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += some[i];
  return sum / static_cast<double>(n);
}

} // namespace

Prediction predict(const Networks &n, const Tensor &x, const MapOptions &options) {
  torch::NoGradGuard no_grad;
  TORCH_CHECK(x.dim() == 4 && x.size(2) == x.size(3), "images must be B x 3 x S x S, got ", x.sizes());
  Features f = n.teacher->forward(x);                                              // K tensors
  Features p = n.projection ? n.projection->forward(f) : f;                        // K tensors
  Tensor z = n.bottleneck->forward(p);                                             // B x 512e x S/32 x S/32
  Features g = n.student->forward(z);                                              // K tensors
  Tensor map = smooth(anomaly_map(f, g, x.size(2), options.terms), options.sigma); // B x S x S
  return {map, highest(map, options.top)};
}

Tensor highest(const Tensor &map, double share) {
  Tensor pixels = map.flatten(1); // B x S*S
  int64_t n = static_cast<int64_t>(share * static_cast<double>(pixels.size(1)));
  if (n < 2) return pixels.amax(1);
  if (auto type = map.scalar_type(); pixels.is_cpu() && (type == torch::kFloat || type == torch::kDouble)) {
    Tensor score = torch::empty({pixels.size(0)}, map.options()); // B
    pixels = pixels.contiguous();
    AT_DISPATCH_FLOATING_TYPES(type, "highest", [&] {
      for (int64_t b = 0; b < pixels.size(0); b++) {
        score.data_ptr<scalar_t>()[b] =
            static_cast<scalar_t>(mean_of_highest(pixels.data_ptr<scalar_t>() + b * pixels.size(1), pixels.size(1), n));
      }
    });
    return score;
  }
  // In float64 the order of summation, which the batch may change, leaves no trace in the result.
  Tensor values = std::get<0>(pixels.topk(n, 1, /*largest=*/true, /*sorted=*/false)); // B x n
  return values.mean(1, /*keepdim=*/false, torch::kFloat64).to(map.scalar_type());
}

} // namespace rdpp
