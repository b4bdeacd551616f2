#include "resnet.h"

#include <stdexcept>

namespace rdpp {

namespace nn = torch::nn;

Arch arch_named(const std::string &name) {
  static const std::vector<Arch> known = {
      {"resnet18", false, {2, 2, 2}, 2, 64},
      {"resnet34", false, {3, 4, 6}, 3, 64},
      {"resnet50", true, {3, 4, 6}, 3, 64},
      {"wide_resnet50_2", true, {3, 4, 6}, 3, 128},
  };
  for (const Arch &a : known) {
    if (a.name == name) return a;
  }
  throw std::invalid_argument(
      "unknown architecture \"" + name +
      "\"; use resnet18, resnet34, resnet50, wide_resnet50_2 or, for a teacher, efficientnet_b5");
}

// Residual block

BlockImpl::BlockImpl(const Arch &arch, int64_t in, int64_t planes, int64_t stride, bool with_shortcut,
                     Direction direction) {
  int64_t width = arch.width(planes), out = planes * arch.expansion();
  // The strided convolution of an upsampling block is a 2x2 transposed one.
  auto strided = [&](int64_t from, int64_t to) {
    if (direction == kUp && stride == 2) return Conv(from, to, 2, 2, ConvImpl::kTransposed);
    return Conv(from, to, 3, stride);
  };
  if (arch.bottleneck) {
    conv1 = register_module("conv1", Conv(in, width, 1, 1));
    bn1 = register_module("bn1", nn::BatchNorm2d(width));
    conv2 = register_module("conv2", strided(width, width));
    bn2 = register_module("bn2", nn::BatchNorm2d(width));
    conv3 = register_module("conv3", Conv(width, out, 1, 1));
    bn3 = register_module("bn3", nn::BatchNorm2d(out));
  } else {
    conv1 = register_module("conv1", strided(in, planes));
    bn1 = register_module("bn1", nn::BatchNorm2d(planes));
    conv2 = register_module("conv2", Conv(planes, planes, 3, 1));
    bn2 = register_module("bn2", nn::BatchNorm2d(planes));
  }
  if (with_shortcut) {
    shortcut_conv = direction == kUp ? Conv(in, out, 2, stride, ConvImpl::kTransposed) : Conv(in, out, 1, stride);
    shortcut_bn = nn::BatchNorm2d(out);
    register_module(direction == kUp ? "upsample" : "downsample", nn::Sequential(shortcut_conv, shortcut_bn));
  }
}

torch::Tensor BlockImpl::forward(const torch::Tensor &x) {
  torch::Tensor y = conv_bn(conv1, bn1, x, true);
  torch::Tensor shortcut = shortcut_conv ? conv_bn(shortcut_conv, shortcut_bn, x, false) : x;
  if (!conv3) return conv_bn(conv2, bn2, y, true, shortcut);
  return conv_bn(conv3, bn3, conv_bn(conv2, bn2, y, true), true, shortcut);
}

Stage make_stage(nn::Module &m, const std::string &name, const Arch &arch, int64_t blocks, int64_t in, int64_t planes,
                 int64_t stride, BlockImpl::Direction direction) {
  auto list = m.register_module(name, nn::ModuleList());
  int64_t out = planes * arch.expansion();
  Stage stage;
  for (int64_t i = 0; i < blocks; i++) {
    bool first = i == 0;
    Block block(arch, first ? in : out, planes, first ? stride : 1, first && (stride != 1 || in != out), direction);
    list->push_back(block);
    stage.push_back(block);
  }
  return stage;
}

torch::Tensor run(Stage &stage, torch::Tensor x) {
  for (Block &block : stage) x = block(x);
  return x;
}

} // namespace rdpp
