// De-biased Sinkhorn divergences between weighted point clouds: symmetric, log-domain, epsilon scaling
// (J. Feydy's thesis, section 3.3).
#pragma once

#include <torch/torch.h>

#include <vector>

namespace rdpp {

struct SinkhornOptions {
  double p = 2;          // cost |x - y|^p / p, p 1 or 2
  double blur = 0.05;    // finest scale
  double reach = 0;      // largest transport distance; <= 0: unbounded
  double diameter = 1e7; // of the clouds; <= 0: from their bounding box
  double scaling = 0.95; // ratio of successive scales
  bool debias = true;
};

// x: P x N x D, y: P x M x D, a: P x N, b: P x M (undefined: uniform) -> P divergences.
torch::Tensor sinkhorn(const torch::Tensor &x, const torch::Tensor &y, const torch::Tensor &a, const torch::Tensor &b,
                       const SinkhornOptions &options);

// Pairs of uniform clouds x[i]: N x D_i, y[i]: M x D_i whose dimensions may differ, solved as one batch.
torch::Tensor sinkhorn_clouds(const std::vector<torch::Tensor> &x, const std::vector<torch::Tensor> &y,
                              const SinkhornOptions &options);

} // namespace rdpp
