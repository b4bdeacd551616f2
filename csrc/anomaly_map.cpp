#include "anomaly_map.h"

#include "channels_last.h"
#include "cosine.h"

#include <vector>

namespace rdpp {

namespace {

// Factors of 1, as released, leave every bit alone.
torch::Tensor weighted(const torch::Tensor &x, double weight) { return weight == 1 ? x : x * weight; }

} // namespace

torch::Tensor anomaly_map(const Features &f, const Features &g, int64_t S, const MapTerms &terms) {
  namespace F = torch::nn::functional;
  torch::Tensor map = torch::zeros({f[0].size(0), S, S}, wide(f[0]).options()); // B x S x S
  auto add = [&](const torch::Tensor &narrow_a, const torch::Tensor &narrow_b, int term) {
    if (terms.weights[term] == 0) return;
    auto scaled = [&](const torch::Tensor &d) {
      double level = terms.levels[term];
      return weighted(level > 0 ? (d / level).log1p() : d, terms.weights[term]);
    };
    torch::Tensor a = wide(narrow_a), b = wide(narrow_b); // B x C x H x W
    TORCH_CHECK(a.size(0) == map.size(0), "features of ", map.size(0), " and of ", a.size(0), " images");
    bool fast = lies_channels_last(a) && lies_channels_last(b) && a.sizes() == b.sizes() &&
                a.scalar_type() == torch::kFloat32 && b.scalar_type() == torch::kFloat32;
    if (fast) {
      add_upsampled(scaled(cosine_distance(a, b, kNormFloor * kNormFloor)), map);
      return;
    }
    torch::Tensor distance = scaled(1 - cosine(a, b, kPosition)).unsqueeze(1); // B x 1 x H x W
    auto options =
        F::InterpolateFuncOptions().size(std::vector<int64_t>{S, S}).mode(torch::kBilinear).align_corners(true);
    map += F::interpolate(distance, options).squeeze(1);
  };
  auto averaged = [](const torch::Tensor &x) {
    return torch::avg_pool2d(wide(x), 3, 1, 1, /*ceil_mode=*/false, /*count_include_pad=*/false);
  };
  for (int k = 0; k < kScales; k++) {
    add(f[k], g[k], k);
    if (terms.weights[kScales + k] != 0) add(averaged(f[k]), averaged(g[k]), kScales + k);
  }
  return map;
}

torch::Tensor smooth(const torch::Tensor &map, double sigma) {
  int64_t radius = static_cast<int64_t>(4 * sigma + 0.5), S = map.size(-1);
  auto options = map.options();
  torch::Tensor offsets = torch::arange(-radius, radius + 1, options.dtype(torch::kFloat64));
  torch::Tensor kernel = torch::exp(-0.5 * (offsets / sigma).square());
  kernel = (kernel / kernel.sum()).to(options);
  if (map.is_cpu() && map.scalar_type() == torch::kFloat32 && map.is_contiguous() && !torch::GradMode::is_enabled()) {
    const float *weights = kernel.data_ptr<float>();
    return convolve_mirrored(map, std::vector<float>(weights, weights + kernel.numel()));
  }
  // Index i outside 0..S-1 reads the mirrored pixel, with period 2S.
  torch::Tensor mirrored =
      torch::arange(-radius, S + radius, options.dtype(torch::kInt64)).remainder(2 * S); // S + 2*radius
  mirrored = torch::minimum(mirrored, 2 * S - 1 - mirrored);
  torch::Tensor y = map.unsqueeze(1);                                                     // B x 1 x S x S
  y = torch::conv2d(y.index_select(2, mirrored), kernel.view({1, 1, 2 * radius + 1, 1})); // along H
  y = torch::conv2d(y.index_select(3, mirrored), kernel.view({1, 1, 1, 2 * radius + 1})); // along W
  return y.squeeze(1);
}

} // namespace rdpp
