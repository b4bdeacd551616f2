#include "networks.h"

#include "channels_last.h"
#include "instance_norm.h"

#include <string>

namespace rdpp {

namespace nn = torch::nn;

// Teacher

ResNetImpl::ResNetImpl(const Arch &arch) {
  conv1 = register_module("conv1", Conv(3, 64, 7, 2));
  bn1 = register_module("bn1", nn::BatchNorm2d(64));
  int64_t in = 64;
  for (int k = 0; k < kScales; k++) {
    int64_t planes = 64 << k;
    layers[k] = make_stage(*this, "layer" + std::to_string(k + 1), arch, arch.blocks[k], in, planes, k == 0 ? 1 : 2,
                           BlockImpl::kDown);
    in = planes * arch.expansion();
  }
}

Features ResNetImpl::forward(const torch::Tensor &x) { // B x 3 x S x S
  torch::Tensor y = conv_bn(conv1, bn1, x, true);      // B x 64 x S/2 x S/2
  y = lies_channels_last(y) && (y.scalar_type() == torch::kFloat32 || y.scalar_type() == torch::kBFloat16)
          ? max_pool_3x3(y)
          : torch::max_pool2d(y, 3, 2, 1); // B x 64 x S/4 x S/4
  Features f;                              // f[k]: B x 64e*2^k x S/(4*2^k) x S/(4*2^k)
  for (int k = 0; k < kScales; k++) f[k] = y = run(layers[k], y);
  return f;
}

void TeacherImpl::ignore_level(const std::array<double, 3> &std) {
  torch::NoGradGuard no_grad;
  torch::Tensor &w = conv1->weight; // 64 x 3 x 7 x 7
  TORCH_CHECK(w.requires_grad(), "the teacher is frozen; a trainable one is needed");
  torch::Tensor change = torch::tensor({1 / std[0], 1 / std[1], 1 / std[2]}, w.options()).view({1, 3, 1, 1});
  change = change.expand({1, 3, w.size(2), w.size(3)});
  conv1->folded = {};
  w -= (w * change).sum({1, 2, 3}, /*keepdim=*/true) / change.square().sum() * change;
}

// Projection

ProjectionImpl::ProjectionImpl(const Arch &arch, int first) {
  for (int k = first; k < kScales; k++) {
    int64_t C = (64 << k) * arch.expansion();
    auto proj = std::make_shared<nn::Module>(), scale = std::make_shared<nn::Module>();
    const int64_t channels[] = {C, C / 2, C / 4, C / 2, C};
    for (int i = 0; i < 4; i++) {
      Conv conv(channels[i], channels[i + 1], 3, 1, ConvImpl::kPlain, true);
      convs[k].push_back(conv);
      // Convolution, norm and activation take three places each in the released Sequential.
      proj->register_module(std::to_string(3 * i), conv.ptr());
    }
    scale->register_module("proj", proj);
    register_module(std::string("proj_") + "abc"[k], scale);
  }
}

Features ProjectionImpl::forward(const Features &f) {
  nn::BatchNorm2d no_norm{nullptr};
  Features p; // p[k]: the shape of f[k]
  for (int k = 0; k < kScales; k++) {
    p[k] = f[k];
    for (Conv &conv : convs[k]) {
      p[k] = instance_norm_leaky_relu(conv_bn(conv, no_norm, p[k], false), 1e-5, 0.01);
    }
  }
  return p;
}

// Bottleneck

BottleneckImpl::BottleneckImpl(const Arch &arch) {
  int64_t e = arch.expansion();
  bn_layer = make_stage(*this, "bn_layer", arch, arch.ocbe_blocks, 768 * e, 512, 2, BlockImpl::kDown);
  conv1 = register_module("conv1", Conv(64 * e, 128 * e, 3, 2));
  bn1 = register_module("bn1", nn::BatchNorm2d(128 * e));
  conv2 = register_module("conv2", Conv(128 * e, 256 * e, 3, 2));
  bn2 = register_module("bn2", nn::BatchNorm2d(256 * e));
  conv3 = register_module("conv3", Conv(128 * e, 256 * e, 3, 2));
  bn3 = register_module("bn3", nn::BatchNorm2d(256 * e));
  conv4 = register_module("conv4", Conv(1024 * e, 512 * e, 1, 1));
  bn4 = register_module("bn4", nn::BatchNorm2d(512 * e));
}

torch::Tensor BottleneckImpl::forward(const Features &p) {
  torch::Tensor l1 = conv_bn(conv2, bn2, conv_bn(conv1, bn1, p[0], true), true); // B x 256e x S/16 x S/16
  torch::Tensor l2 = conv_bn(conv3, bn3, p[1], true);                            // B x 256e x S/16 x S/16
  return run(bn_layer, torch::cat({l1, l2, p[2]}, 1));                           // B x 512e x S/32 x S/32
}

// Student

StudentImpl::StudentImpl(const Arch &arch) {
  int64_t in = 512 * arch.expansion();
  for (int i = 0; i < kScales; i++) {
    int64_t planes = 256 >> i;
    layers[i] = make_stage(*this, "layer" + std::to_string(i + 1), arch, arch.blocks[i], in, planes, 2, BlockImpl::kUp);
    in = planes * arch.expansion();
  }
}

Features StudentImpl::forward(const torch::Tensor &z) { // B x 512e x S/32 x S/32
  Features g;                                           // the shapes of the teacher's f
  torch::Tensor y = z;
  for (int i = 0; i < kScales; i++) g[kScales - 1 - i] = y = run(layers[i], y);
  return g;
}

} // namespace rdpp
