// The four networks of RD++: teacher, projection, bottleneck, student; and the heads that a teacher learns with.
#pragma once

#include <ATen/core/ivalue.h>
#include <torch/torch.h>

#include <array>
#include <string>
#include <vector>

namespace rdpp {

constexpr int kScales = 3;
using Features = std::array<torch::Tensor, kScales>;

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

// A convolution, or a transposed one whose stride is its kernel (2); parameters `weight` and, where asked for, `bias`.
struct ConvImpl : torch::nn::Module {
  enum Kind { kPlain, kTransposed };
  ConvImpl(int64_t in, int64_t out, int64_t kernel, int64_t stride, Kind kind = kPlain, bool with_bias = false);
  // In mixed precision x is bfloat16, and so are the product and the copy of the weights it is made with.
  torch::Tensor forward(const torch::Tensor &x);

  torch::Tensor weight, bias;
  int64_t stride, padding;
  Kind kind;
  bool channels_last = false; // see use_channels_last
  bool frozen = false;        // see freeze

  // Convolution and batch norm as one, in the forms that were needed so far for inputs of one size and type.
  struct Folded {
    std::vector<int64_t> input; // C, H, W; empty off the CPU
    torch::ScalarType type = torch::kFloat32;
    c10::IValue onednn;                    // for oneDNN's operation
    torch::Tensor winograd, winograd_bias; // for winograd_conv
    torch::Tensor plain, plain_bias;       // for libtorch's convolution
  } folded;
};
TORCH_MODULE(Conv);

// Convolution, batch norm (or none: nullptr), sum with add (or undefined) and ReLU (or not).
torch::Tensor conv_bn(Conv &conv, torch::nn::BatchNorm2d &bn, const torch::Tensor &x, bool relu,
                      const torch::Tensor &add = {});

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

// Teacher E: a torchvision ResNet up to layer3.
struct TeacherImpl : torch::nn::Module {
  explicit TeacherImpl(const Arch &arch);
  Features forward(const torch::Tensor &x);
  // Takes from every filter of conv1 its answer to a change of all pixels by one grey level, for inputs that were
  // divided by std.
  void ignore_level(const std::array<double, 3> &std);

  Conv conv1{nullptr};
  torch::nn::BatchNorm2d bn1{nullptr};
  std::array<Stage, kScales> layers;
};
TORCH_MODULE(Teacher);

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

// Draws fresh parameters from `seed` as the released code does: Kaiming normal (fan_out, relu) for plain
// convolutions without bias, PyTorch's defaults for transposed ones and for those with bias.
void initialise(torch::nn::Module &m, uint64_t seed);

// Lays weights and activations out channels last, the order that convolutions are fastest in on CPUs and on tensor
// cores. Names, shapes and results stay, up to rounding; without it networks compute as PyTorch's own do, bit for bit.
void use_channels_last(torch::nn::Module &m);

// on: from now on the weights stay as they are, and outside autograd every convolution runs with its batch norm folded
// in, in the fastest way there is for the device and type; what is rearranged for that is so once, not at every call.
// For channels-last networks in eval mode; others stay as they are.
void freeze(torch::nn::Module &m, bool on);

} // namespace rdpp
