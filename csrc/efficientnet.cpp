#include "efficientnet.h"

#include "channels_last.h"

#include <memory>
#include <string>

namespace rdpp {

namespace nn = torch::nn;
using torch::Tensor;

namespace {

nn::BatchNorm2d norm_of(int64_t channels) { return nn::BatchNorm2d(nn::BatchNorm2dOptions(channels).eps(1e-3)); }

// A module that has no more than names: torchvision's Sequential.
std::shared_ptr<nn::Module> row(nn::Module &in, const std::string &name) {
  return in.register_module(name, std::make_shared<nn::Module>());
}

// Whether channels_last.h has functions for x.
bool plain(const Tensor &x) {
  return lies_channels_last(x) && (x.scalar_type() == torch::kFloat32 || x.scalar_type() == torch::kBFloat16);
}

// Both change x, which is nobody else's. Libtorch's own ways compute an element otherwise where it lies at the end of
// what a thread has, so that a score would depend on the batch.
Tensor swish(Tensor x) {
  if (!plain(x)) return torch::silu_(x);
  swish_in_place(x);
  return x;
}

Tensor gate(Tensor x) {
  if (!plain(x)) return torch::sigmoid_(x);
  sigmoid_in_place(x);
  return x;
}

} // namespace

// Block

InvertedBlockImpl::InvertedBlockImpl(int64_t in, int64_t out, int64_t expansion, int64_t kernel, int64_t stride)
    : residual(stride == 1 && in == out) {
  auto block = row(*this, "block");
  int64_t wide = in * expansion, place = 0;
  auto layer = [&](int64_t from, int64_t to, int64_t side, int64_t step, ConvImpl::Kind kind) {
    auto both = row(*block, std::to_string(place++));
    return Layer{both->register_module("0", Conv(from, to, side, step, kind)), both->register_module("1", norm_of(to))};
  };
  if (expansion > 1) expand = layer(in, wide, 1, 1, ConvImpl::kPlain);
  depthwise = layer(wide, wide, kernel, stride, ConvImpl::kDepthwise);
  auto squeeze = row(*block, std::to_string(place++));
  fc1 = squeeze->register_module("fc1", Conv(wide, in / 4, 1, 1, ConvImpl::kPlain, /*with_bias=*/true));
  fc2 = squeeze->register_module("fc2", Conv(in / 4, wide, 1, 1, ConvImpl::kPlain, /*with_bias=*/true));
  project = layer(wide, out, 1, 1, ConvImpl::kPlain);
}

Tensor InvertedBlockImpl::forward(const Tensor &x) { // B x C x H x W
  nn::BatchNorm2d none{nullptr};
  Tensor y = expand.conv ? swish(conv_bn(expand.conv, expand.norm, x, false)) : x;       // B x eC x H x W
  y = swish(conv_bn(depthwise.conv, depthwise.norm, y, false));                          // B x eC x h x w
  Tensor s = plain(y) ? mean_of_positions(y) : y.mean({2, 3}, /*keepdim=*/true);         // B x eC x 1 x 1
  s = gate(conv_bn(fc2, none, swish(conv_bn(fc1, none, s, false)), false));              // B x eC x 1 x 1
  return conv_bn(project.conv, project.norm, y.mul_(s), false, residual ? x : Tensor()); // B x C' x h x w
}

// Teacher

EfficientNetImpl::EfficientNetImpl() {
  // EfficientNet-B0's stages (the paper's Table 1), with 1.6 times the channels, rounded to a multiple of 8, and 2.2
  // times the blocks, rounded up.
  struct {
    int64_t blocks, out, expansion, kernel, stride;
  } const scaled[] = {{3, 24, 1, 3, 1},  {5, 40, 6, 3, 2},  {5, 64, 6, 5, 2},
                      {7, 128, 6, 3, 2}, {7, 176, 6, 5, 1}, {9, 304, 6, 5, 2}};

  auto features = row(*this, "features"), stem = row(*features, "0");
  int64_t in = 48, place = 1;
  conv1 = stem->register_module("0", Conv(3, in, 3, 2));
  bn1 = stem->register_module("1", norm_of(in));
  for (const auto &s : scaled) {
    auto blocks = row(*features, std::to_string(place++));
    std::vector<InvertedBlock> stage;
    for (int64_t i = 0; i < s.blocks; i++, in = s.out) {
      InvertedBlock block(in, s.out, s.expansion, s.kernel, i == 0 ? s.stride : 1);
      stage.push_back(blocks->register_module(std::to_string(i), block));
    }
    stages.push_back(std::move(stage));
  }
}

Features EfficientNetImpl::forward(const Tensor &x) { // B x 3 x S x S
  torch::NoGradGuard no_grad;
  std::vector<Tensor> seen; // of features.0, features.1 and so on
  seen.push_back(swish(conv_bn(conv1, bn1, x, false)));
  for (auto &stage : stages) {
    Tensor y = seen.back();
    for (InvertedBlock &block : stage) y = block(y);
    seen.push_back(y);
  }
  return {seen[3], seen[5], seen[6]};
}

} // namespace rdpp
