// The anomaly map (paper, Figure 4).
#pragma once

#include "networks.h"

#include <array>

namespace rdpp {

// What a map is the weighted sum of: d = 1 - cos over channels at every scale, and the same of features averaged over
// 3x3 positions at every scale. A weight of 0 leaves a term out. A level above 0 makes it log(1 + d / level).
constexpr int kTerms = 2 * kScales;
struct MapTerms {
  std::array<double, kTerms> weights; // 1, 1, 1, 0, 0, 0: as released
  std::array<double, kTerms> levels;  // 0: as released
};

// The sum, each term upsampled to S x S: B x S x S.
torch::Tensor anomaly_map(const Features &f, const Features &g, int64_t S, const MapTerms &terms);

// Gaussian blur of B x S x S maps, truncated at 4 sigma, edges mirrored with the edge pixel repeated.
torch::Tensor smooth(const torch::Tensor &map, double sigma);

} // namespace rdpp
