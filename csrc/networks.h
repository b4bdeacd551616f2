// The four networks of RD++: teacher E, projection P, bottleneck O, student D.
#pragma once

#include "resnet.h"

#include <torch/torch.h>

#include <array>
#include <vector>

namespace rdpp {

constexpr int kScales = 3;
using Features = std::array<torch::Tensor, kScales>;

// Teacher E, of any family.
struct TeacherImpl : torch::nn::Module {
  // x: B x 3 x S x S -> features of K scales, the finest first, each of half the one before.
  virtual Features forward(const torch::Tensor &x) = 0;
  // Takes from every filter of the first convolution its answer to a change of all pixels by one grey level, for inputs
  // that were divided by std.
  void ignore_level(const std::array<double, 3> &std);

  Conv conv1{nullptr}; // that reads the image
};

// A torchvision ResNet up to layer3.
struct ResNetImpl : TeacherImpl {
  explicit ResNetImpl(const Arch &arch);
  Features forward(const torch::Tensor &x) override;

  torch::nn::BatchNorm2d bn1{nullptr};
  std::array<Stage, kScales> layers;
};

// Projection P: per scale four blocks of Conv3x3, InstanceNorm, LeakyReLU. Scales below `first`, counted from 0, pass.
struct ProjectionImpl : torch::nn::Module {
  ProjectionImpl(const Arch &arch, int first);
  Features forward(const Features &f);

  std::array<std::vector<Conv>, kScales> convs;
};
TORCH_MODULE(Projection);

// Bottleneck O, the one-class bottleneck embedding (OCBE).
struct BottleneckImpl : torch::nn::Module {
  explicit BottleneckImpl(const Arch &arch);
  torch::Tensor forward(const Features &p);

  Stage bn_layer;
  // conv4 and bn4 are in the released checkpoints and take no part in forward.
  Conv conv1{nullptr}, conv2{nullptr}, conv3{nullptr}, conv4{nullptr};
  torch::nn::BatchNorm2d bn1{nullptr}, bn2{nullptr}, bn3{nullptr}, bn4{nullptr};
};
TORCH_MODULE(Bottleneck);

// Student D: a reversed ResNet.
struct StudentImpl : torch::nn::Module {
  explicit StudentImpl(const Arch &arch);
  Features forward(const torch::Tensor &z);

  std::array<Stage, kScales> layers;
};
TORCH_MODULE(Student);

} // namespace rdpp
