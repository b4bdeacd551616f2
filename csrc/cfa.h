// CFA (Lee, Lee and Song, "CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly Localization",
// 2022, arXiv:2206.04325): descriptors of what a teacher sees learn to lie in spheres around the rows of a bank.
#pragma once

#include "boundary.h"
#include "module.h"
#include "predictor.h"

#include <vector>

namespace rdpp {

// What is seen around every position: the features of all scales averaged over 3x3 positions, with zeros around the
// border, stretched to the finest scale's positions and joined, and the position's row and column, -1 to 1. B x (C_1 +
// C_2 + C_3 + 2) x H x W, float32 (float64 for float64).
torch::Tensor joined(const Features &f);

// Descriptors, which learn, and the bank of those of good images, which does not.
struct DescriptorImpl : torch::nn::Module {
  DescriptorImpl(const Arch &arch, const rdpp_descriptor_options &options);
  // f: the teacher's -> B x H x W x D, H and W those of layer1.
  torch::Tensor forward(const Features &f);

  Conv conv{nullptr};    // CoordConv of 1x1: of what is joined, coordinates included
  torch::Tensor radius;  // 1: r of the spheres
  torch::Tensor centres; // M x D: the bank
};
TORCH_MODULE(Descriptor);

// Squared distances of x: N x D from the k rows of centres: M x D that are nearest, ascending: N x k. Gradients flow to
// x. What is compared at a time takes at most so many bytes, or what those of one of the N take.
torch::Tensor nearest_distances(const torch::Tensor &x, const torch::Tensor &centres, int64_t k, int64_t bytes);

// The terms of the loss, scalars.
struct SphereLosses {
  torch::Tensor attraction, repulsion;
};
// phi: B x H x W x D.
SphereLosses loss_spheres(const DescriptorImpl &descriptor, const torch::Tensor &phi,
                          const rdpp_sphere_loss_options &options);

// Means of `count` clusters of the points, N x D on the CPU: count x D, by k-means++ and then Lloyd's iterations until
// no point moves to another cluster, but `most` at most. The same for any number of threads.
torch::Tensor k_means(const torch::Tensor &points, int64_t count, int64_t most, uint64_t seed);

// modules: teacher and descriptor.
Predictor::Method spheres(const std::vector<const rdpp_module *> &modules, const rdpp_sphere_map_options &options);

} // namespace rdpp
