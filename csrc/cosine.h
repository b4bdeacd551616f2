// Cosines of features, as losses and maps compare them.
#pragma once

#include <torch/torch.h>

namespace rdpp {

constexpr double kNormFloor = 1e-8; // torch.nn.CosineSimilarity's eps

// Sums over mixed precision's bfloat16 are made in float32.
inline torch::Tensor wide(const torch::Tensor &x) {
  return x.scalar_type() == torch::kBFloat16 ? x.to(torch::kFloat32) : x;
}

// Cosine of a and b, B x C x H x W, over the given dimensions, which the result lacks.
inline torch::Tensor cosine(const torch::Tensor &narrow_a, const torch::Tensor &narrow_b, torch::IntArrayRef over) {
  torch::Tensor a = wide(narrow_a), b = wide(narrow_b);
  TORCH_CHECK(a.sizes() == b.sizes(), "features of different shapes, ", a.sizes(), " and ", b.sizes());
  torch::Tensor dot = (a * b).sum(over);
  torch::Tensor norms = a.square().sum(over) * b.square().sum(over);
  return dot / norms.clamp_min(kNormFloor * kNormFloor).sqrt();
}

constexpr int64_t kPosition[] = {1};    // a cosine per position: B x H x W
constexpr int64_t kImage[] = {1, 2, 3}; // a cosine per image: B

} // namespace rdpp
