#include "networks.h"

#include "channels_last.h"
#include "instance_norm.h"
#include "winograd.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <cmath>
#include <optional>

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
  throw std::invalid_argument("unknown architecture \"" + name +
                              "\"; use resnet18, resnet34, resnet50 or wide_resnet50_2");
}

// Convolution

ConvImpl::ConvImpl(int64_t in, int64_t out, int64_t kernel, int64_t stride, Kind kind, bool with_bias)
    : stride(stride), padding(kernel / 2), kind(kind) {
  int64_t first = kind == kTransposed ? in : out;
  int64_t second = kind == kTransposed ? out : in;
  weight = register_parameter("weight", torch::zeros({first, second, kernel, kernel}));
  if (with_bias) bias = register_parameter("bias", torch::zeros({out}));
}

namespace {

// With stride = kernel the outputs of a 2x2 transposed convolution do not overlap: it is a 1x1 convolution to four
// times the channels, one set per place in the 2x2 square, and that is much faster on a CPU. C_in x C_out x 2 x 2 ->
// 4C_out x C_in x 1 x 1
torch::Tensor square_weight(const torch::Tensor &weight) {
  return weight.permute({2, 3, 1, 0}).reshape({4 * weight.size(1), weight.size(0), 1, 1});
}

// B x 4C x H x W -> B x C x 2H x 2W, channels last in memory
torch::Tensor spread_squares(const torch::Tensor &y) {
  int64_t B = y.size(0), C = y.size(1) / 4, H = y.size(2), W = y.size(3);
  torch::Tensor squares = y.permute({0, 2, 3, 1}).reshape({B, H, W, 2, 2, C}).permute({0, 1, 3, 2, 4, 5});
  return squares.reshape({B, 2 * H, 2 * W, C}).permute({0, 3, 1, 2});
}

} // namespace

torch::Tensor ConvImpl::forward(const torch::Tensor &x) {
  bool winograd = channels_last && kind == kPlain && stride == 1 && weight.size(2) == 3;
  if (winograd && winograd_pays_learning(x, weight)) return winograd_conv_learning(x, weight, bias);
  torch::Tensor w = weight, b = bias;
  if (x.scalar_type() == torch::kBFloat16) {
    w = w.to(torch::kBFloat16);
    if (b.defined()) b = b.to(torch::kBFloat16);
  }
  if (kind == kPlain) return torch::conv2d(x, w, b, stride, padding);
  if (!channels_last || !x.is_cpu()) return torch::conv_transpose2d(x, w, b, stride);
  return spread_squares(torch::conv2d(x, square_weight(w)));
}

// Frozen convolutions: batch norms are folded in. On CPUs by Winograd's way or libtorch's oneDNN operations for
// TorchScript, called by name.

namespace {

std::optional<c10::OperatorHandle> onednn(const char *name) {
  auto found = c10::Dispatcher::singleton().findSchema({name, ""});
  if (!found) return std::nullopt;
  return *found;
}

// Whether libtorch has those operations for such inputs. In bfloat16 it asks more of the processor.
bool has_onednn(const torch::Tensor &x) {
  static const bool there = onednn("mkldnn_prepacked::conv2d_prepack") && onednn("mkldnn_prepacked::conv2d_run");
  if (!there || !x.is_cpu()) return false;
#if defined(__x86_64__)
  static const bool brain =
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (x.scalar_type() == torch::kBFloat16) return brain;
#endif
  return x.scalar_type() == torch::kFloat32;
}

// Convolution and batch norm as one convolution: (Wx - mean) * scale + bias.
std::pair<torch::Tensor, torch::Tensor> fold(const ConvImpl &conv, nn::BatchNorm2dImpl *bn) {
  bool transposed = conv.kind == ConvImpl::kTransposed;
  torch::Tensor weight = transposed ? square_weight(conv.weight) : conv.weight, bias = conv.bias;
  if (!bn) return {weight, bias};
  torch::Tensor scale = bn->weight / (bn->running_var + bn->options.eps()).sqrt();
  bias = bn->bias - bn->running_mean * scale;
  if (transposed) scale = scale.repeat(4), bias = bias.repeat(4);
  return {weight * scale.view({-1, 1, 1, 1}), bias};
}

// The folded convolution of x, plus add where Winograd's way can, then ReLU where asked for; *added says whether.
torch::Tensor run_folded(ConvImpl &conv, nn::BatchNorm2dImpl *bn, const torch::Tensor &x, bool relu,
                         const torch::Tensor &add, bool *added) {
  ConvImpl::Folded &folded = conv.folded;
  bool transposed = conv.kind == ConvImpl::kTransposed;
  // On the CPU the form is one for inputs of a size; batches of all sizes share it.
  std::vector<int64_t> input;
  if (x.is_cpu()) input = {x.size(1), x.size(2), x.size(3)};
  if (folded.input != input || folded.type != x.scalar_type()) {
    folded = {};
    folded.input = input;
    folded.type = x.scalar_type();
  }

  bool winograd = !transposed && conv.stride == 1 && conv.weight.size(2) == 3 && has_onednn(x) &&
                  conv.weight.scalar_type() == torch::kFloat32 &&
                  winograd_pays(x.size(1), x.size(2), x.size(3), conv.weight.size(0));
  if (winograd) {
    if (!folded.winograd.defined()) {
      auto [weight, bias] = fold(conv, bn);
      folded.winograd = winograd_weights(weight), folded.winograd_bias = bias;
    }
    *added = true;
    return winograd_conv(x, folded.winograd, folded.winograd_bias, add, relu);
  }

  *added = !add.defined();
  bool relu_here = relu && *added;
  std::vector<int64_t> stride(2, transposed ? 1 : conv.stride), padding(2, transposed ? 0 : conv.padding), one(2, 1);
  torch::Tensor y;
  if (has_onednn(x)) {
    static const auto prepack = onednn("mkldnn_prepacked::conv2d_prepack"),
                      run = onednn("mkldnn_prepacked::conv2d_run");
    if (folded.onednn.isNone()) {
      auto [weight, bias] = fold(conv, bn);
      if (bias.defined()) bias = bias.to(x.scalar_type());
      torch::jit::Stack stack = {weight.to(x.scalar_type()), bias, stride, padding, one, 1, x.sizes().vec(),
                                 relu_here ? "relu" : "none"};
      prepack->callBoxed(&stack);
      folded.onednn = stack.front();
    }
    torch::jit::Stack stack = {x, folded.onednn};
    run->callBoxed(&stack);
    y = stack.front().toTensor();
  } else {
    if (!folded.plain.defined()) {
      auto [weight, bias] = fold(conv, bn);
      folded.plain = weight.to(x.scalar_type()).contiguous(torch::MemoryFormat::ChannelsLast);
      if (bias.defined()) folded.plain_bias = bias.to(x.scalar_type());
    }
    y = torch::conv2d(x, folded.plain, folded.plain_bias, stride, padding);
    if (relu_here) y.relu_();
  }
  return transposed ? spread_squares(y) : y;
}

torch::Tensor run_frozen(ConvImpl &conv, nn::BatchNorm2dImpl *bn, const torch::Tensor &x, bool relu,
                         const torch::Tensor &add) {
  bool added = false;
  // The images may lie otherwise.
  torch::Tensor y = run_folded(conv, bn, x.contiguous(torch::MemoryFormat::ChannelsLast), relu, add, &added);
  if (added) return y;
  y += add;
  return relu ? y.relu_() : y;
}

} // namespace

torch::Tensor conv_bn(Conv &conv, nn::BatchNorm2d &bn, const torch::Tensor &x, bool relu, const torch::Tensor &add) {
  torch::ScalarType own = conv->weight.scalar_type(), type = x.scalar_type();
  bool mixed = own == torch::kFloat32 && type == torch::kBFloat16;
  if (conv->frozen && (own == type || mixed) && !torch::GradMode::is_enabled())
    return run_frozen(*conv, bn ? bn.get() : nullptr, x, relu, add);
  torch::Tensor y = conv(x);
  if (bn) y = bn(y);
  if (add.defined()) y += add;
  return relu ? y.relu_() : y;
}

void freeze(nn::Module &m, bool on) {
  m.apply([on](nn::Module &child) {
    auto *conv = child.as<ConvImpl>();
    if (!conv) return;
    conv->frozen = on && conv->channels_last;
    conv->folded = {};
  });
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

namespace {

// `blocks` residual blocks registered on m as name.0, name.1, ...; the first one changes shape.
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

} // namespace

// Teacher

TeacherImpl::TeacherImpl(const Arch &arch) {
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

Features TeacherImpl::forward(const torch::Tensor &x) { // B x 3 x S x S
  torch::Tensor y = conv_bn(conv1, bn1, x, true);       // B x 64 x S/2 x S/2
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

// Head

HeadImpl::HeadImpl(const Arch &arch, Objective objective, int64_t outputs) : objective(objective) {
  TORCH_CHECK(outputs >= 1, "a head needs at least one output, got ", outputs);
  for (int k = 0; k < kScales; k++) {
    std::vector<int64_t> channels = {(64 << k) * arch.expansion(), outputs};
    if (objective == Objective::kPair) channels.insert(channels.begin() + 1, 256);
    auto list = register_module("head" + std::to_string(k + 1), nn::ModuleList());
    for (size_t i = 0; i + 1 < channels.size(); i++) {
      Conv conv(channels[i], channels[i + 1], 1, 1, ConvImpl::kPlain, true);
      list->push_back(conv);
      convs[k].push_back(conv);
    }
  }
}

torch::Tensor HeadImpl::forward(int64_t k, const torch::Tensor &f_k) {
  bool pooled = objective != Objective::kDense;
  auto wide = f_k.scalar_type() == torch::kBFloat16 ? torch::kFloat32 : f_k.scalar_type();
  torch::Tensor y = pooled ? f_k.mean({2, 3}, /*keepdim=*/true, wide) : f_k;
  std::vector<Conv> &layers = convs.at(static_cast<size_t>(k));
  for (size_t i = 0; i < layers.size(); i++) y = layers[i](i == 0 ? y : y.relu());
  y = y.to(wide);
  if (pooled) y = y.flatten(1);
  if (objective == Objective::kPair) y = nn::functional::normalize(y, nn::functional::NormalizeFuncOptions().dim(1));
  return y;
}

// Initialisation

void initialise(nn::Module &m, uint64_t seed) {
  torch::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  m.apply([&](nn::Module &child) {
    auto *conv = child.as<ConvImpl>();
    if (!conv) return;
    int64_t kernel = conv->weight.size(2) * conv->weight.size(3);
    if (conv->kind == ConvImpl::kPlain && !conv->bias.defined()) {
      double fan_out = static_cast<double>(conv->weight.size(0) * kernel);
      conv->weight.normal_(0, std::sqrt(2 / fan_out), generator);
      return;
    }
    // Kaiming uniform with a = sqrt 5 is the uniform distribution in +-1/sqrt(fan_in).
    double bound = 1 / std::sqrt(static_cast<double>(conv->weight.size(1) * kernel));
    conv->weight.uniform_(-bound, bound, generator);
    if (conv->bias.defined()) conv->bias.uniform_(-bound, bound, generator);
  });
}

void use_channels_last(nn::Module &m) {
  torch::NoGradGuard no_grad;
  m.apply([](nn::Module &child) {
    auto *conv = child.as<ConvImpl>();
    if (!conv) return;
    conv->channels_last = true;
    conv->weight.set_data(conv->weight.contiguous(torch::MemoryFormat::ChannelsLast));
  });
}

} // namespace rdpp
