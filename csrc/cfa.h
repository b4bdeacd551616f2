// CFA (Lee, Lee and Song, "CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly Localization",
// 2022, arXiv:2206.04325): descriptors of what a teacher sees learn to lie in spheres around the rows of a bank.
#pragma once

#include "boundary.h"
#include "module.h"
#include "predictor.h"

#include <memory>
#include <random>
#include <vector>

namespace rdpp {

// What is seen around every position: the features of all scales averaged over 3x3 positions, with zeros around the
// border, stretched to the finest scale's positions and joined, and the position's row and column, -1 to 1. B x (C_1 +
// C_2 + C_3 + 2) x H x W, float32 (float64 for float64).
torch::Tensor joined(const Features &f);

// The rows of a bank, and what tells which of them are near.
struct Rows {
  explicit Rows(const torch::Tensor &centres); // M x D
  torch::Tensor centres;                       // M x D
  // Of what is left of x and a row c once their mean is taken from both, |c|^2 - 2xc is as good as the distance for
  // telling the nearest: without that the products of long rows cancel to distances that are all rounding.
  torch::Tensor mean;    // D
  torch::Tensor doubled; // M x D: -2c
  torch::Tensor lengths; // M: |c|^2
};

// Descriptors, which learn, and the bank of those of good images, which does not.
struct DescriptorImpl : torch::nn::Module {
  DescriptorImpl(const Arch &arch, const rdpp_descriptor_options &options);
  // f: the teacher's -> B x H x W x D, H and W those of layer1.
  torch::Tensor forward(const Features &f);
  void train(bool on = true) override; // must be called once the bank has changed
  const Rows &rows();                  // of the bank

  Conv conv{nullptr};    // CoordConv of 1x1: of what is joined, coordinates included
  torch::Tensor radius;  // 1: r of the spheres
  torch::Tensor centres; // M x D: the bank

private:
  std::unique_ptr<Rows> rows_; // none until they are asked for
};
TORCH_MODULE(Descriptor);

// Squared distances of x: N x D from the k rows that are nearest, ascending: N x k. Gradients flow to x. What is
// compared at a time takes at most so many bytes, or what those of one of the N take.
torch::Tensor nearest_distances(const torch::Tensor &x, const Rows &rows, int64_t k, int64_t bytes);

// The terms of the loss, scalars.
struct SphereLosses {
  torch::Tensor attraction, repulsion;
};
// phi: B x H x W x D.
SphereLosses loss_spheres(DescriptorImpl &descriptor, const torch::Tensor &phi,
                          const rdpp_sphere_loss_options &options);

// A search for the means of `count` clusters of points by k-means++ and then Lloyd's iterations, in steps that take a
// fraction of a second. It is the same for any number of threads.
class Clusters {
public:
  // points: N x D, float32 on the CPU. most: iterations, at most.
  Clusters(const torch::Tensor &points, int64_t count, int64_t most, uint64_t seed);
  // Draws another mean to begin with, or compares some of the points with all means. True once no point moves to
  // another cluster, or after the last iteration.
  bool step();
  const torch::Tensor &centres() const; // count x D

private:
  void draw();
  bool compare();
  void move();

  torch::Tensor points_;
  int64_t count_, most_;
  std::mt19937_64 random_;
  std::vector<int64_t> drawn_;    // numbers of points
  torch::Tensor nearest_;         // N: squared distances from the nearest one that is drawn
  torch::Tensor centres_;         // count x D; undefined until all are drawn
  std::unique_ptr<Rows> rows_;    // of centres_
  torch::Tensor cluster_, other_; // N, int64: each point's, of the last iteration, and of this one up to compared_
  int64_t compared_ = 0, iterations_ = 0;
  bool done_ = false;
};

// modules: teacher and descriptor.
Predictor::Method spheres(const std::vector<const rdpp_module *> &modules, const rdpp_sphere_map_options &options);

} // namespace rdpp
