// EfficientNet-B5 (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019)
// as a teacher, with torchvision's names.
#pragma once

#include "networks.h"

#include <cstdint>
#include <vector>

namespace rdpp {

// A mobile inverted bottleneck: a 1x1 convolution to more channels, where there are to be more, a depthwise one,
// squeeze-excitation, and a 1x1 convolution to the channels that come out. Where shapes agree x is added.
struct InvertedBlockImpl : torch::nn::Module {
  InvertedBlockImpl(int64_t in, int64_t out, int64_t expansion, int64_t kernel, int64_t stride);
  torch::Tensor forward(const torch::Tensor &x);

  // A convolution and its batch norm.
  struct Layer {
    Conv conv{nullptr};
    torch::nn::BatchNorm2d norm{nullptr};
  };
  Layer expand, depthwise, project;
  Conv fc1{nullptr}, fc2{nullptr}; // of the squeeze-excitation
  const bool residual;
};
TORCH_MODULE(InvertedBlock);

// Torchvision's features.0 to features.6, which are the first 36 blocks: 304 channels at a stride of 32. Frozen, in
// eval mode, in which stochastic depth does nothing.
struct EfficientNetImpl : TeacherImpl {
  static constexpr const char *kName = "efficientnet_b5";

  EfficientNetImpl();
  // f[k]: B x 64, 176 and 304 x S/(8*2^k) x S/(8*2^k), of features.3, features.5 and features.6, S divided by 2 and
  // rounded up each time.
  Features forward(const torch::Tensor &x) override;

  torch::nn::BatchNorm2d bn1{nullptr};
  std::vector<std::vector<InvertedBlock>> stages; // of features.1 on
};

} // namespace rdpp
