#include "fastflow.h"

#include "cosine.h"

#include <cmath>
#include <string>

namespace rdpp {

namespace nn = torch::nn;
namespace F = torch::nn::functional;
using torch::Tensor;

// Steps

namespace {

// What the sub-networks give is made smaller, so that a fresh step changes little.
constexpr double kShare = 0.1;

// A channel's scale is kScaleShare times the softplus of its parameter, so that it is positive; freshly it is 1.
constexpr double kScaleShare = 0.1, kScaleBeta = 0.5;
const double kFreshScale = std::log(std::expm1(kScaleBeta / kScaleShare)) / kScaleBeta;

Tensor per_channel(const Tensor &x) { return x.view({1, -1, 1, 1}); }

} // namespace

FlowStepImpl::FlowStepImpl(int64_t channels, int64_t kernel, double hidden, double clamp)
    : kept_(channels - channels / 2), clamp_{SoftClamp::kTanh, clamp} {
  int64_t middle = static_cast<int64_t>(hidden * static_cast<double>(kept_));
  TORCH_CHECK(middle >= 1 && channels >= 2, "a flow's step of ", channels, " channels with a hidden share of ", hidden);
  conv1 = register_module("conv1", Conv(kept_, middle, kernel, 1, ConvImpl::kPlain, /*with_bias=*/true));
  conv2 = register_module("conv2", Conv(middle, 2 * (channels - kept_), kernel, 1, ConvImpl::kPlain, true));
  scale = register_parameter("scale", torch::full({channels}, kFreshScale));
  offset = register_parameter("offset", torch::zeros({channels}));
  order = register_buffer("order", torch::arange(channels));
}

Affine FlowStepImpl::affine(const Tensor &kept) {
  nn::BatchNorm2d none{nullptr};
  Tensor a = conv_bn(conv2, none, conv_bn(conv1, none, kept, true), false) * kShare;
  int64_t half = a.size(1) / 2;
  return {a.narrow(1, 0, half), a.narrow(1, half, half)};
}

Tensor FlowStepImpl::scales() const { return torch::softplus(scale, kScaleBeta) * kScaleShare; }

Flowed FlowStepImpl::forward(const Tensor &x, bool with_log_det) {
  int64_t changed = x.size(1) - kept_;
  Tensor kept = x.narrow(1, 0, kept_);
  Flowed result = couple(x.narrow(1, kept_, changed), affine(kept), clamp_, with_log_det);
  Tensor s = scales(), y = torch::cat({kept, result.y}, 1) * per_channel(s) + per_channel(offset);
  result.y = permute_channels(y, order);
  if (with_log_det) result.log_det = result.log_det + s.log().sum() * (x.size(2) * x.size(3));
  return result;
}

Tensor FlowStepImpl::inverse(const Tensor &y) {
  Tensor x = (restore_channels(y, order) - per_channel(offset)) / per_channel(scales());
  Tensor kept = x.narrow(1, 0, kept_);
  return torch::cat({kept, uncouple(x.narrow(1, kept_, x.size(1) - kept_), affine(kept), clamp_)}, 1);
}

// Flows

FastFlowImpl::FastFlowImpl(const Arch &arch, const FastFlowOptions &o, uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (int k = 0; k < kScales; k++) {
    auto scale = std::make_shared<nn::Module>();
    int64_t C = (64 << k) * arch.expansion(), side = o.side / (4 << k);
    if (o.affine) {
      weight_[k] = scale->register_parameter("norm_weight", torch::ones({C, side, side}));
      bias_[k] = scale->register_parameter("norm_bias", torch::zeros({C, side, side}));
    }
    for (int64_t i = 0; i < o.steps; i++) {
      FlowStep step(C, o.pointwise && i % 2 == 1 ? 1 : 3, o.hidden, o.clamp);
      step->order.copy_(torch::randperm(C, generator));
      steps_[k].push_back(step);
      scale->register_module(std::to_string(i), step.ptr());
    }
    register_module("layer" + std::to_string(k + 1), scale);
  }
}

Features FastFlowImpl::normalise(const Features &f) {
  constexpr double kEps = 1e-5;
  Features x;
  for (int k = 0; k < kScales; k++) {
    Tensor all = wide(f[k]);
    x[k] = torch::layer_norm(all, all.sizes().slice(1), weight_[k], bias_[k], kEps);
  }
  return x;
}

std::array<Flowed, kScales> FastFlowImpl::forward(const Features &x, bool with_log_det) {
  std::array<Flowed, kScales> result;
  for (int k = 0; k < kScales; k++) {
    result[k].y = x[k];
    for (FlowStep &step : steps_[k]) {
      Flowed next = step->forward(result[k].y, with_log_det);
      if (result[k].log_det.defined()) next.log_det = result[k].log_det + next.log_det;
      result[k] = next;
    }
  }
  return result;
}

Features FastFlowImpl::inverse(const Features &z) {
  Features x = z;
  for (int k = 0; k < kScales; k++) {
    for (auto step = steps_[k].rbegin(); step != steps_[k].rend(); ++step) x[k] = (*step)->inverse(x[k]);
  }
  return x;
}

Tensor loss_flow(const Features &z, const Features &log_det) {
  Tensor sum;
  for (int k = 0; k < kScales; k++) {
    Tensor term = (z[k].square().flatten(1).sum(1) * 0.5 - log_det[k]).mean();
    sum = k == 0 ? term : sum + term;
  }
  return sum;
}

// Prediction

Prediction predict_flow(TeacherImpl &teacher, FastFlowImpl &flow, const Tensor &x, const FlowMapOptions &options) {
  torch::NoGradGuard no_grad;
  TORCH_CHECK(x.dim() == 4 && x.size(2) == x.size(3), "images must be B x 3 x S x S, got ", x.sizes());
  std::array<Flowed, kScales> flowed = flow.forward(flow.normalise(teacher.forward(x)), /*with_log_det=*/false);
  auto stretch = F::InterpolateFuncOptions().mode(torch::kBilinear).align_corners(false);
  stretch.size(std::vector<int64_t>{x.size(2), x.size(3)});
  Tensor map;
  for (int k = 0; k < kScales; k++) {
    Tensor value = flowed[k].y.square().mean(1, /*keepdim=*/true) * 0.5; // B x 1 x H x W
    if (!options.likelihood) value = 1 - (-value).exp();
    Tensor stretched = F::interpolate(value, stretch).squeeze(1);
    map = k == 0 ? stretched : map + stretched;
  }
  map = (map / kScales).contiguous();
  if (options.sigma > 0) map = smooth(map, options.sigma);
  return {map, highest(map, options.top)};
}

} // namespace rdpp
