// What normalising flows have in common: affine couplings (Dinh et al., "Density estimation using Real NVP", ICLR
// 2017), whose scales are clamped softly, and permutations of channels.
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace rdpp {

// Keeps the logarithm s of a scale within +-limit.
struct SoftClamp {
  enum Form {
    kTanh, // limit tanh(s)
    kAtan  // limit 2/pi atan(s / limit)
  };
  Form form;
  double limit;

  torch::Tensor operator()(const torch::Tensor &s) const;
};

// What a sub-network makes of the channels that a coupling leaves alone, in the shape of those that it changes.
struct Affine {
  torch::Tensor log_scale; // not clamped yet
  torch::Tensor shift;
};

// A flow's result, or a part's of it.
struct Flowed {
  torch::Tensor y;
  torch::Tensor log_det; // B: logarithms of the determinants of y's derivatives by x; undefined where nobody asked
};

// x exp(clamp(s)) + t, s and t being a's. x: B x C x H x W.
Flowed couple(const torch::Tensor &x, const Affine &a, const SoftClamp &clamp, bool with_log_det);
// The way back.
torch::Tensor uncouple(const torch::Tensor &y, const Affine &a, const SoftClamp &clamp);

// The channels of x: B x C x H x W in another order: channel i is x's order[i]. order: C, int64.
torch::Tensor permute_channels(const torch::Tensor &x, const torch::Tensor &order);
// The way back.
torch::Tensor restore_channels(const torch::Tensor &y, const torch::Tensor &order);

} // namespace rdpp
