// CSFlow (Rudolph et al., "Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection", WACV 2022): what a
// teacher sees of an image in three sizes, and a normalising flow over all three at once.
#pragma once

#include "flow.h"
#include "module.h"
#include "networks.h"
#include "predictor.h"

#include <array>
#include <cstdint>
#include <vector>

namespace rdpp {

// The teacher's coarsest features, of a stride of s pixels, of x, B x 3 x S x S, of every second pixel of it and of
// every fourth, which are those that the published code's nearest interpolation keeps: B x C x ceil(S/(s*2^k)) x
// ceil(S/(s*2^k)). Outside autograd.
Features pyramid(TeacherImpl &teacher, const torch::Tensor &x);

// A sub-network of the flow, r in the paper: per scale a convolution, LeakyReLU of slope 0.1 and a second convolution,
// to which the neighbouring scales add one of their own, upsampled or with a stride of 2. What comes out is multiplied
// by a learned factor per scale, which begins at 0.
struct CrossConvsImpl : torch::nn::Module {
  CrossConvsImpl(int64_t in, int64_t out, int64_t hidden, int64_t kernel);
  Features forward(const Features &x);

  std::array<Conv, kScales> first{nullptr, nullptr, nullptr}, second{nullptr, nullptr, nullptr};
  std::array<Conv, kScales> up{nullptr, nullptr, nullptr};   // to scale k from k + 1; none to the last
  std::array<Conv, kScales> down{nullptr, nullptr, nullptr}; // to scale k from k - 1; none to the first
  std::array<torch::Tensor, kScales> gamma;                  // of one element
};
TORCH_MODULE(CrossConvs);

// Fixed orders of the channels, one per scale, and affine couplings: of the first halves by the second ones, then of
// the second halves by what the first ones have become.
struct CouplingBlockImpl : torch::nn::Module {
  CouplingBlockImpl(int64_t channels, int64_t hidden, int64_t kernel, double clamp, torch::Generator orders);
  // y -> z; what the block adds to the logarithm of the determinant is added to log_det, B.
  Features forward(const Features &y, torch::Tensor &log_det);
  Features inverse(const Features &z);

  const int64_t head, tail; // channels of the halves
  const SoftClamp clamp;
  std::array<torch::Tensor, kScales> order; // C, int64, see permute_channels
  CrossConvs r1{nullptr}, r2{nullptr};      // that read the first and the second halves
};
TORCH_MODULE(CouplingBlock);

// The flow. Where the finest scale's sides are multiples of 4 it is the published one; elsewhere the sides of coarser
// scales are rounded up, and upsampling is to the finer one's size.
struct CrossFlowImpl : torch::nn::Module {
  CrossFlowImpl(const rdpp_cross_flow_options &options, uint64_t seed);

  struct Latent {
    Features z;
    torch::Tensor log_det; // B
  };
  Latent forward(const Features &y);
  Features inverse(const Features &z);

  const int64_t channels;
  std::vector<CouplingBlock> blocks;

private:
  void check(const Features &y) const;
};
TORCH_MODULE(CrossFlow);

// The negative logarithm of the likelihood but for a constant, per number of z, averaged over images.
torch::Tensor loss_cross_flow(const Features &z, const torch::Tensor &log_det);

// modules: teacher and cross-scale flow.
Predictor::Method cross_scales(const std::vector<const rdpp_module *> &modules, const rdpp_cross_map_options &options);

} // namespace rdpp
