// What the networks have in common: the ResNet family and its residual blocks.
#pragma once

#include "conv.h"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace rdpp {

// A ResNet family member.
struct Arch {
  std::string name;
  bool bottleneck;               // 1x1-3x3-1x1 blocks, else two 3x3
  std::array<int64_t, 3> blocks; // of layer1..layer3, in teacher and student alike
  int64_t ocbe_blocks;           // of the bottleneck network's bn_layer
  int64_t base_width;            // channels of the 3x3 in a bottleneck block, per 64 planes

  int64_t expansion() const { return bottleneck ? 4 : 1; }
  int64_t width(int64_t planes) const { return bottleneck ? planes * base_width / 64 : planes; }
};

// Throws for a name that is none of resnet18, resnet34, resnet50, wide_resnet50_2.
Arch arch_named(const std::string &name);

// A residual block. Downsampling (teacher, bottleneck) or upsampling (student) by `stride`.
struct BlockImpl : torch::nn::Module {
  enum Direction { kDown, kUp };
  BlockImpl(const Arch &arch, int64_t in, int64_t planes, int64_t stride, bool with_shortcut, Direction direction);
  torch::Tensor forward(const torch::Tensor &x);

  Conv conv1{nullptr}, conv2{nullptr}, conv3{nullptr};
  torch::nn::BatchNorm2d bn1{nullptr}, bn2{nullptr}, bn3{nullptr};
  Conv shortcut_conv{nullptr};
  torch::nn::BatchNorm2d shortcut_bn{nullptr};
};
TORCH_MODULE(Block);

using Stage = std::vector<Block>;

// `blocks` residual blocks registered on m as name.0, name.1, ...; the first one changes shape.
Stage make_stage(torch::nn::Module &m, const std::string &name, const Arch &arch, int64_t blocks, int64_t in,
                 int64_t planes, int64_t stride, BlockImpl::Direction direction);
torch::Tensor run(Stage &stage, torch::Tensor x);

} // namespace rdpp
