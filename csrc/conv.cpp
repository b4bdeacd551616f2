#include "conv.h"

#include "allocator.h"
#include "group.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <cmath>
#include <optional>
#include <stdexcept>
#include <utility>

namespace rdpp {

namespace nn = torch::nn;

// Convolution

ConvImpl::ConvImpl(int64_t in, int64_t out, int64_t kernel, int64_t stride, Kind kind, bool with_bias)
    : stride(stride), padding(kernel / 2), groups(kind == kDepthwise ? out : 1), kind(kind), out(out), kernel(kernel) {
  TORCH_CHECK(kind != kDepthwise || in == out, "a depthwise convolution of ", in, " to ", out, " channels");
  int64_t first = kind == kTransposed ? in : out;
  int64_t second = kind == kTransposed ? out : in / groups;
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

void ConvImpl::need_weight() const {
  if (weight.numel() > 0) return;
  throw std::invalid_argument("a released network takes inputs of the size and type of its first ones alone; open the "
                              "model once more for others");
}

torch::Tensor ConvImpl::forward(const torch::Tensor &x) {
  need_weight();
  bool winograd = channels_last && kind == kPlain && stride == 1 && weight.size(2) == 3;
  if (winograd && winograd_pays_learning(x, weight)) return winograd_conv_learning(x, weight, bias);
  torch::Tensor w = weight, b = bias;
  if (x.scalar_type() == torch::kBFloat16) {
    w = w.to(torch::kBFloat16);
    if (b.defined()) b = b.to(torch::kBFloat16);
  }
  if (kind != kTransposed) return torch::conv2d(x, w, b, stride, padding, /*dilation=*/1, groups);
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
  conv.need_weight();
  bool transposed = conv.kind == ConvImpl::kTransposed;
  torch::Tensor weight = transposed ? square_weight(conv.weight) : conv.weight, bias = conv.bias;
  if (!bn) return {weight, bias};
  torch::Tensor scale = bn->weight / (bn->running_var + bn->options.eps()).sqrt();
  bias = bn->bias - bn->running_mean * scale;
  if (transposed) scale = scale.repeat(4), bias = bias.repeat(4);
  return {weight * scale.view({-1, 1, 1, 1}), bias};
}

// t in channels-last order. Where an image or a kernel is a single pixel, t may lie so already while its strides say
// otherwise, and which they are depends on the batch and on where t comes from; by them oneDNN would choose how it
// computes, and so the rounding.
torch::Tensor in_channels_last(const torch::Tensor &t) {
  torch::Tensor y = t.contiguous(torch::MemoryFormat::ChannelsLast);
  if (y.size(2) * y.size(3) > 1) return y;
  int64_t C = y.size(1);
  return y.as_strided(y.sizes(), {C, 1, C, C});
}

// A convolution as oneDNN's operation takes it, for inputs like x. By the weight's strides the operation chooses the
// order that it brings the weight into; where they do not say channels last, as x is, the operation would bring it into
// another one at every call.
c10::IValue packed(const std::pair<torch::Tensor, torch::Tensor> &folded, const torch::Tensor &x,
                   const std::vector<int64_t> &stride, const std::vector<int64_t> &padding, int64_t groups, bool relu) {
  static const auto prepack = onednn("mkldnn_prepacked::conv2d_prepack");
  auto [weight, bias] = folded;
  weight = in_channels_last(weight.to(x.scalar_type())).variable_data(); // a view would keep what it is of
  if (bias.defined()) bias = bias.to(x.scalar_type());
  std::vector<int64_t> one(2, 1);
  torch::jit::Stack stack = {weight, bias, stride, padding, one, groups, x.sizes().vec(), relu ? "relu" : "none"};
  prepack->callBoxed(&stack);
  // The operation keeps this very tensor beside its own form of it, only to be able to give it back.
  weight.set_data(torch::empty({0}, weight.options()));
  return stack.front();
}

bool made(const ConvImpl::Folded &folded) {
  return folded.winograd.defined() || !folded.onednn.isNone() || !folded.plain.empty();
}

void let_go(ConvImpl &conv, size_t needed) {
  if (!conv.released || conv.weight.numel() == 0 || conv.folded.size() < needed || !made(conv.folded.back())) return;
  conv.weight.set_data(torch::empty({0}, conv.weight.options()));
  return_memory();
}

// Where it has the forms for all the sizes that it remembers.
void let_go(ConvImpl &conv) { let_go(conv, conv.weight.is_cpu() ? conv.sizes : 1); }

// The forms for inputs like x. On the CPU they are of a size and type; batches of all sizes share them. On a device the
// plain form of every type stays, as a CUDA graph may read it.
ConvImpl::Folded &folded_for(ConvImpl &conv, const torch::Tensor &x) {
  ConvImpl::Folded wanted;
  if (x.is_cpu()) wanted.input = {x.size(1), x.size(2), x.size(3)}, wanted.type = x.scalar_type();
  for (ConvImpl::Folded &folded : conv.folded) {
    if (folded.input == wanted.input && folded.type == wanted.type) return folded;
  }
  conv.need_weight();
  if (conv.folded.size() >= conv.sizes) conv.folded.erase(conv.folded.begin());
  conv.folded.push_back(std::move(wanted));
  return conv.folded.back();
}

// The folded convolution of x, plus add where Winograd's way can, then ReLU where asked for; *added says whether.
torch::Tensor run_folded(ConvImpl &conv, nn::BatchNorm2dImpl *bn, const torch::Tensor &x, bool relu,
                         const torch::Tensor &add, bool *added) {
  ConvImpl::Folded &folded = folded_for(conv, x);
  bool transposed = conv.kind == ConvImpl::kTransposed;
  bool winograd = conv.kind == ConvImpl::kPlain && conv.stride == 1 && conv.kernel == 3 && has_onednn(x) &&
                  conv.weight.scalar_type() == torch::kFloat32 &&
                  winograd_pays(x.size(1), x.size(2), x.size(3), conv.out);
  if (winograd) {
    if (!folded.winograd.defined()) {
      auto [weight, bias] = fold(conv, bn);
      folded.winograd = winograd_weights(weight), folded.winograd_bias = bias;
      let_go(conv);
    }
    *added = true;
    return winograd_conv(x, folded.winograd, folded.winograd_bias, add, relu);
  }

  *added = !add.defined();
  bool relu_here = relu && *added;
  std::vector<int64_t> stride(2, transposed ? 1 : conv.stride), padding(2, transposed ? 0 : conv.padding), one(2, 1);
  torch::Tensor y;
  if (has_onednn(x)) {
    static const auto run = onednn("mkldnn_prepacked::conv2d_run");
    if (folded.onednn.isNone()) {
      folded.onednn = packed(fold(conv, bn), x, stride, padding, conv.groups, relu_here);
      let_go(conv);
    }
    torch::jit::Stack stack = {x, folded.onednn};
    run->callBoxed(&stack);
    y = stack.front().toTensor();
  } else {
    ConvImpl::Folded::Plain &plain = folded.plain[x.scalar_type()];
    if (!plain.weight.defined()) {
      auto [weight, bias] = fold(conv, bn);
      if (bias.defined()) plain.bias = bias.to(x.scalar_type());
      // A tensor of its own where it is the convolution's weight unchanged, which is about to be emptied.
      plain.weight = weight.detach().to(x.scalar_type()).contiguous(torch::MemoryFormat::ChannelsLast);
      let_go(conv);
    }
    y = torch::conv2d(x, plain.weight, plain.bias, stride, padding, one, conv.groups);
    if (relu_here) y.relu_();
  }
  return transposed ? spread_squares(y) : y;
}

torch::Tensor run_frozen(ConvImpl &conv, nn::BatchNorm2dImpl *bn, const torch::Tensor &x, bool relu,
                         const torch::Tensor &add) {
  bool added = false;
  torch::Tensor y = run_folded(conv, bn, in_channels_last(x), relu, add, &added);
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
  if (bn) y = conv->group && bn->is_training() ? batch_norm_of_all(*conv->group, y, *bn) : bn(y);
  if (add.defined()) y += add;
  return relu ? y.relu_() : y;
}

torch::Tensor exact_conv(const torch::Tensor &x, const torch::Tensor &weight, const torch::Tensor &bias) {
  const at::Context &context = at::globalContext();
  std::vector<int64_t> none(2, 0), one(2, 1);
  at::NoTF32Guard exact; // this thread's, for what cuBLAS computes; cuDNN is told by the last argument
  return at::_convolution(x, weight, bias, /*stride=*/one, /*padding=*/none, /*dilation=*/one, /*transposed=*/false,
                          /*output_padding=*/none, /*groups=*/1, context.benchmarkCuDNN(),
                          context.deterministicCuDNN() || context.deterministicAlgorithms(), context.userEnabledCuDNN(),
                          /*allow_tf32=*/false);
}

void freeze(nn::Module &m, bool on) {
  m.apply([on](nn::Module &child) {
    auto *conv = child.as<ConvImpl>();
    if (!conv) return;
    conv->frozen = on && conv->channels_last;
    conv->folded = {};
  });
}

void remember_sizes(nn::Module &m, size_t sizes) {
  m.apply([sizes](nn::Module &child) {
    if (auto *conv = child.as<ConvImpl>()) conv->sizes = sizes;
  });
}

void release(nn::Module &m) {
  m.apply([](nn::Module &child) {
    auto *conv = child.as<ConvImpl>();
    if (!conv || !conv->frozen) return;
    conv->released = true;
    if (!conv->folded.empty()) let_go(*conv);
  });
}

void seen_all_sizes(nn::Module &m) {
  m.apply([](nn::Module &child) {
    if (auto *conv = child.as<ConvImpl>()) let_go(*conv, 1);
  });
}

// Initialisation

void initialise(nn::Module &m, uint64_t seed) {
  torch::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  m.apply([&](nn::Module &child) {
    auto *conv = child.as<ConvImpl>();
    if (!conv) return;
    int64_t kernel = conv->weight.size(2) * conv->weight.size(3);
    if (conv->kind != ConvImpl::kTransposed && !conv->bias.defined()) {
      double fan_out = static_cast<double>(conv->weight.size(0) / conv->groups * kernel);
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
