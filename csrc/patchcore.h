// PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022): what a teacher sees
// around every position, compared with a bank of what it saw in good images.
#pragma once

#include "networks.h"
#include "predict.h"

namespace rdpp {

// The patches of layer2 and layer3, f[1] and f[2]: B x H x W x D, float32 (float64 for float64), H and W those of
// layer2. A patch is the mean of each layer's features over 3x3 positions, with zeros around the border, layer3's
// stretched to layer2's positions. dimensions > 0, a multiple of 2: the released code's instead, D of them. There a
// layer's 9 C values around a position, by channels, are averaged over neighbouring values into as many as dimensions,
// and those in pairs.
torch::Tensor patches(const Features &f, int64_t dimensions);

// Patches of good images, one a row.
struct BankImpl : torch::nn::Module {
  BankImpl(int64_t count, int64_t D);
  void train(bool on = true) override; // must be called once rows have changed

  struct Nearest {
    torch::Tensor distance, row; // B x H x W; row: int64
  };
  // p: B x H x W x D. The distances between an image's patches and the rows take at most so many bytes at a time, or
  // what those of one row take.
  Nearest nearest(const torch::Tensor &p, int64_t bytes);
  // The rows nearest to each of the given ones, themselves included: n -> n x b, the nearest first.
  torch::Tensor neighbours(const torch::Tensor &of, int64_t b);

  torch::Tensor rows; // M x D

private:
  // Of a patch x and a row y, |y|^2 - 2xy is as good as the distance for telling the nearest. On the CPU in float32
  // each n rows are packed for that; elsewhere the numbers of all rows lie in one tensor each, whatever n is, since
  // what a CUDA graph reads must stay where it is.
  std::vector<Conv> packed_;
  torch::Tensor weight_, bias_; // M x D x 1 x 1: -2y, and M: |y|^2
  void prepare(int64_t n);
  // x: 1 x D x H x W -> 1 x n' x H x W, of rows from first on, a multiple of n; n' = n but at the end.
  torch::Tensor products(const torch::Tensor &x, int64_t first, int64_t n);
};
TORCH_MODULE(Bank);

struct BankOptions {
  double sigma;       // of the map's Gaussian, pixels
  int64_t dimensions; // of a patch, see patches
  bool of_map;        // an image's score is its map's maximum, instead of its farthest patch's distance
  int64_t neighbours; // b of the paper's Eq. 7, which weights the score; below 2: it is not weighted
  int64_t bytes;      // that distances may take at a time
};

// x: B x 3 x S x S, normalised, the teacher in eval mode. map: each patch's distance to the nearest row of the bank,
// stretched to B x S x S and smoothed; score: B.
Prediction predict_patches(TeacherImpl &teacher, BankImpl &bank, const torch::Tensor &x, const BankOptions &options);

} // namespace rdpp
