#include "csflow.h"

#include <memory>
#include <stdexcept>
#include <string>

namespace rdpp {

namespace nn = torch::nn;
namespace F = torch::nn::functional;
using torch::Tensor;

// Features

Features pyramid(TeacherImpl &teacher, const Tensor &x) {
  TORCH_CHECK(x.dim() == 4 && x.size(2) == x.size(3), "images must be B x 3 x S x S, got ", x.sizes());
  torch::NoGradGuard no_grad;
  if (teacher.conv1->sizes < size_t{kScales}) remember_sizes(teacher, kScales);
  Features y;
  for (int k = 0; k < kScales; k++) {
    int64_t step = int64_t{1} << k, S = x.size(2);
    y[k] = teacher.forward(x.slice(2, 0, S, step).slice(3, 0, S, step))[kScales - 1];
  }
  if (teacher.conv1->released) seen_all_sizes(teacher);
  return y;
}

// Sub-network

CrossConvsImpl::CrossConvsImpl(int64_t in, int64_t out, int64_t hidden, int64_t kernel) {
  auto conv = [&](const char *name, int k, int64_t from, int64_t to, int64_t stride) {
    return register_module(name + std::to_string(k), Conv(from, to, kernel, stride, ConvImpl::kPlain, true));
  };
  for (int k = 0; k < kScales; k++) {
    gamma[k] = register_parameter("gamma" + std::to_string(k), torch::zeros({1}));
    first[k] = conv("first", k, in, hidden, 1);
    second[k] = conv("second", k, hidden, out, 1);
    if (k + 1 < kScales) up[k] = conv("up", k, hidden, out, 1);
    if (k > 0) down[k] = conv("down", k, hidden, out, 2);
  }
}

namespace {

// Bilinear, by the pixels' areas, to the size of `to`. A single pixel is repeated: how such a tensor lies in memory, by
// which libtorch chooses how it interpolates, depends on the batch, and so would the rounding.
Tensor stretched(const Tensor &x, const Tensor &to) {
  if (x.size(2) == 1 && x.size(3) == 1) return x.expand({-1, -1, to.size(2), to.size(3)});
  auto options = F::InterpolateFuncOptions().mode(torch::kBilinear).align_corners(false);
  return F::interpolate(x, options.size(std::vector<int64_t>{to.size(2), to.size(3)}));
}

} // namespace

Features CrossConvsImpl::forward(const Features &x) {
  nn::BatchNorm2d none{nullptr};
  Features y, out;
  for (int k = 0; k < kScales; k++) y[k] = torch::leaky_relu(conv_bn(first[k], none, x[k], false), 0.1);
  for (int k = 0; k < kScales; k++) {
    out[k] = conv_bn(second[k], none, y[k], false);
    if (k > 0) out[k] = out[k] + conv_bn(down[k], none, y[k - 1], false);
    if (k + 1 < kScales) out[k] = out[k] + conv_bn(up[k], none, stretched(y[k + 1], y[k]), false);
    out[k] = out[k] * gamma[k];
  }
  return out;
}

// Coupling block

CouplingBlockImpl::CouplingBlockImpl(int64_t channels, int64_t hidden, int64_t kernel, double clamp,
                                     torch::Generator orders)
    : head(channels / 2), tail(channels - head), clamp{SoftClamp::kAtan, clamp} {
  for (int k = 0; k < kScales; k++) {
    order[k] = register_buffer("order" + std::to_string(k), torch::randperm(channels, orders, torch::kInt64));
  }
  r1 = register_module("r1", CrossConvs(head, 2 * tail, hidden, kernel));
  r2 = register_module("r2", CrossConvs(tail, 2 * head, hidden, kernel));
}

namespace {

// Of what a sub-network makes for so many channels: the scales first, then the shifts.
Affine affine(const Tensor &raw, int64_t channels) {
  return {raw.narrow(1, 0, channels), raw.narrow(1, channels, channels)};
}

} // namespace

Features CouplingBlockImpl::forward(const Features &y, Tensor &log_det) {
  Features first, second, z;
  for (int k = 0; k < kScales; k++) {
    Tensor ordered = permute_channels(y[k], order[k]);
    first[k] = ordered.narrow(1, 0, head), second[k] = ordered.narrow(1, head, tail);
  }
  auto change = [&](Features &half, int64_t channels, const Features &raw) {
    for (int k = 0; k < kScales; k++) {
      Flowed flowed = couple(half[k], affine(raw[k], channels), clamp, /*with_log_det=*/true);
      half[k] = flowed.y, log_det = log_det + flowed.log_det;
    }
  };
  change(first, head, r2(second));
  change(second, tail, r1(first));
  for (int k = 0; k < kScales; k++) z[k] = torch::cat({first[k], second[k]}, 1);
  return z;
}

Features CouplingBlockImpl::inverse(const Features &z) {
  Features first, second, y;
  for (int k = 0; k < kScales; k++) first[k] = z[k].narrow(1, 0, head), second[k] = z[k].narrow(1, head, tail);
  auto change = [&](Features &half, int64_t channels, const Features &raw) {
    for (int k = 0; k < kScales; k++) half[k] = uncouple(half[k], affine(raw[k], channels), clamp);
  };
  change(second, tail, r1(first));
  change(first, head, r2(second));
  for (int k = 0; k < kScales; k++) y[k] = restore_channels(torch::cat({first[k], second[k]}, 1), order[k]);
  return y;
}

// Flow

namespace {

// The options where they can be, else throws. The bounds are far above use, and low enough that no size overflows.
const rdpp_cross_flow_options &possible(const rdpp_cross_flow_options &o) {
  TORCH_CHECK(o.channels >= 2 && o.channels <= 1 << 16 && o.blocks >= 1 && o.blocks <= 1 << 10 && o.hidden >= 1 &&
                  o.hidden <= 1 << 16 && o.clamp > 0,
              "a flow of ", o.channels, " channels, ", o.blocks, " blocks, ", o.hidden,
              " hidden channels and a clamp of ", o.clamp);
  return o;
}

} // namespace

CrossFlowImpl::CrossFlowImpl(const rdpp_cross_flow_options &options, uint64_t seed)
    : channels(possible(options).channels) {
  auto orders = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (int64_t i = 0; i < options.blocks; i++) {
    CouplingBlock block(channels, options.hidden, i + 1 < options.blocks ? 3 : 5, options.clamp, orders);
    blocks.push_back(register_module("block" + std::to_string(i), block));
  }
}

void CrossFlowImpl::check(const Features &y) const {
  for (int k = 0; k < kScales; k++) {
    TORCH_CHECK(y[k].dim() == 4 && y[k].size(1) == channels, "scale ", k, " must be B x ", channels, " x H x W, got ",
                y[k].sizes());
    if (k == 0) continue;
    const Tensor &finer = y[k - 1];
    TORCH_CHECK(y[k].size(0) == finer.size(0) && y[k].size(2) == (finer.size(2) + 1) / 2 &&
                    y[k].size(3) == (finer.size(3) + 1) / 2,
                "scale ", k, " must be half of ", finer.sizes(), ", rounded up, got ", y[k].sizes());
  }
}

CrossFlowImpl::Latent CrossFlowImpl::forward(const Features &y) {
  check(y);
  Latent latent{y, torch::zeros({y[0].size(0)}, y[0].options())};
  for (CouplingBlock &block : blocks) latent.z = block->forward(latent.z, latent.log_det);
  return latent;
}

Features CrossFlowImpl::inverse(const Features &z) {
  check(z);
  Features y = z;
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) y = (*block)->inverse(y);
  return y;
}

Tensor loss_cross_flow(const Features &z, const Tensor &log_det) {
  Tensor squares; // B
  int64_t numbers = 0;
  for (const Tensor &scale : z) {
    Tensor sum = scale.square().flatten(1).sum(1);
    squares = squares.defined() ? squares + sum : sum;
    numbers += sum.numel() > 0 ? scale.numel() / sum.numel() : 0;
  }
  TORCH_CHECK(log_det.sizes() == squares.sizes(), "z of ", squares.size(0), " images, log_det of ", log_det.sizes());
  return (squares / 2 - log_det).mean() / numbers;
}

// Prediction

namespace {

Prediction predict_cross_flow(TeacherImpl &teacher, CrossFlowImpl &flow, const Tensor &x,
                              const rdpp_cross_map_options &o) {
  torch::NoGradGuard no_grad;
  Features y = pyramid(teacher, x);
  torch::ScalarType type = flow.blocks[0]->r1->gamma[0].scalar_type();
  for (Tensor &scale : y) scale = scale.to(type); // of bfloat16 in mixed precision
  Features z = flow.forward(y).z;
  Tensor map, sum; // B x 1 x S x S, B
  int64_t positions = 0;
  for (int k = 0; k < kScales; k++) {
    // In float64 the order of summation, which the batch may change, leaves no trace in the result.
    Tensor level = z[k].square().mean(1, /*keepdim=*/true, torch::kFloat64) / 2; // B x 1 x H x W
    Tensor all = level.sum({1, 2, 3});
    sum = k == 0 ? all : sum + all;
    positions += level.size(2) * level.size(3);
    if (k > 0 && !o.product) continue;
    Tensor wide = stretched(level.to(type), x);
    map = k == 0 ? wide : map * wide;
  }
  map = smooth(map.squeeze(1).contiguous(), o.sigma);
  return {map, o.of_map ? map.flatten(1).amax(1) : (sum / positions).to(type)};
}

} // namespace

Predictor::Method cross_scales(const std::vector<const rdpp_module *> &modules, const rdpp_cross_map_options &options) {
  if (modules.size() != 2) {
    throw std::invalid_argument("a teacher and a cross-scale flow are needed, got " + std::to_string(modules.size()) +
                                " networks");
  }
  auto teacher = shared<TeacherImpl>(modules[0], RDPP_TEACHER);
  auto flow = shared<CrossFlowImpl>(modules[1], RDPP_CROSS_FLOW);
  return [=](const Tensor &x) { return predict_cross_flow(*teacher, *flow, x, options); };
}

} // namespace rdpp

// The boundary

using namespace rdpp;

rdpp_error rdpp_pyramid(const rdpp_module *teacher, rdpp_tensor x, rdpp_tensor y[RDPP_SCALES]) {
  return guarded([&] { give(pyramid(network<TeacherImpl>(teacher, RDPP_TEACHER), at_tensor(x)), y); });
}

rdpp_error rdpp_cross_flow_new(const rdpp_cross_flow_options *options, int32_t dtype, int32_t device, uint64_t seed,
                               int32_t flags, rdpp_module **out) {
  return guarded([&] {
    if (!options) throw std::invalid_argument("a flow needs options");
    auto net = std::make_shared<CrossFlowImpl>(*options, seed);
    *out = finish(RDPP_CROSS_FLOW, net, dtype, device, seed, flags).release();
  });
}

rdpp_error rdpp_cross_flow(const rdpp_module *m, const rdpp_tensor y[RDPP_SCALES], rdpp_tensor z[RDPP_SCALES],
                           rdpp_tensor *log_det) {
  return guarded([&] {
    torch::AutoGradMode grad(records(m));
    auto latent = network<CrossFlowImpl>(m, RDPP_CROSS_FLOW).forward(features(y));
    auto sums = std::make_unique<Tensor>(latent.log_det);
    give(latent.z, z);
    *log_det = sums.release();
  });
}

rdpp_error rdpp_cross_flow_inverse(const rdpp_module *m, const rdpp_tensor z[RDPP_SCALES], rdpp_tensor y[RDPP_SCALES]) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    give(network<CrossFlowImpl>(m, RDPP_CROSS_FLOW).inverse(features(z)), y);
  });
}

rdpp_error rdpp_loss_cross_flow(const rdpp_tensor z[RDPP_SCALES], rdpp_tensor log_det, rdpp_tensor *out) {
  return guarded([&] { *out = handle(loss_cross_flow(features(z), at_tensor(log_det))); });
}
