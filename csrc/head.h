// The heads that a teacher learns with.
#pragma once

#include "networks.h"

namespace rdpp {

// What a teacher learns: the class of a picture, the class of every position, which pictures belong together.
enum class Objective { kClass, kDense, kPair };

// Per scale a head on the teacher's features, thrown away after its training. Its layers are 1x1 convolutions, on the
// features or on their mean over positions.
struct HeadImpl : torch::nn::Module {
  // outputs: the number of classes, or of the embedding's dimensions.
  HeadImpl(const Arch &arch, Objective objective, int64_t outputs);
  // f_k: B x C x H x W -> float32 (float64 for float64) logits B x outputs (kClass) or B x outputs x H x W (kDense),
  // or embeddings B x outputs of length 1 (kPair).
  torch::Tensor forward(int64_t k, const torch::Tensor &f_k);

  Objective objective;
  std::array<std::vector<Conv>, kScales> convs;
};
TORCH_MODULE(Head);

} // namespace rdpp
