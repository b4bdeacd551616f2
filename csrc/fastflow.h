// FastFlow (Yu et al., "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows", 2021): a
// flow per scale makes a teacher's features of good images noise, N(0, 1), and others something less likely.
#pragma once

#include "flow.h"
#include "networks.h"
#include "predict.h"

#include <array>
#include <vector>

namespace rdpp {

// A step of a flow. A sub-network of two convolutions sees the first half of the channels and says how the second half
// is scaled and shifted; then each channel gets a scale and a shift of its own, and the channels a fixed order.
struct FlowStepImpl : torch::nn::Module {
  FlowStepImpl(int64_t channels, int64_t kernel, double hidden, double clamp);
  Flowed forward(const torch::Tensor &x, bool with_log_det);
  torch::Tensor inverse(const torch::Tensor &y);

  Conv conv1{nullptr}, conv2{nullptr};
  torch::Tensor scale, offset, order; // C each

private:
  int64_t kept_; // channels that the sub-network sees
  SoftClamp clamp_;
  Affine affine(const torch::Tensor &kept);
  torch::Tensor scales() const; // C, positive
};
TORCH_MODULE(FlowStep);

struct FastFlowOptions {
  int64_t side;   // S
  int64_t steps;  // of each flow
  double hidden;  // channels between a sub-network's convolutions, per channel that it sees
  bool pointwise; // every second step's convolutions are 1x1, the others' 3x3; else all are 3x3
  double clamp;   // of the logarithms of scales
  bool affine;    // the layer norms have a weight and a bias for every value
};

// The flows of all scales, and the layer norms before them, each over all values of an image's features.
struct FastFlowImpl : torch::nn::Module {
  // seed: of the channels' orders.
  FastFlowImpl(const Arch &arch, const FastFlowOptions &options, uint64_t seed);
  // f: the teacher's -> x, the same shapes, float32 (float64 for float64).
  Features normalise(const Features &f);
  // x -> per scale z of the same shape and, where asked for, log_det.
  std::array<Flowed, kScales> forward(const Features &x, bool with_log_det);
  Features inverse(const Features &z);

private:
  std::array<torch::Tensor, kScales> weight_, bias_; // C x H x W of the layer norms; undefined where they have none
  std::array<std::vector<FlowStep>, kScales> steps_;
};
TORCH_MODULE(FastFlow);

// The negative logarithm of the likelihood, but for a constant: the sum over scales of |z|^2 / 2 - log_det, averaged
// over images.
torch::Tensor loss_flow(const Features &z, const Features &log_det);

struct FlowMapOptions {
  double sigma;    // of the map's Gaussian, pixels; 0: none
  bool likelihood; // a position's value is m, half the mean of its squared z, instead of 1 - exp(-m)
  double top;      // share of the map's pixels, the highest ones, whose mean is the score; 0: the maximum
};

// x: B x 3 x S x S, normalised, the networks in eval mode. map: the mean over scales, each stretched to B x S x S.
Prediction predict_flow(TeacherImpl &teacher, FastFlowImpl &flow, const torch::Tensor &x,
                        const FlowMapOptions &options);

} // namespace rdpp
