// The loss terms of RD++ (paper, section 4.3), and the losses of a teacher's training.
#pragma once

#include "networks.h"
#include "sinkhorn.h"

namespace rdpp {

enum class Ssot { kPairwise, kBatch, kOff };

// Positions of L_KD whose gradient is held back.
struct EasyPositions {
  double cut = 0;         // share of the gradient that is taken from them; 0: none, as released
  double below = 0;       // they lie nearer to the teacher than the mean distance plus so many deviations
  Group *group = nullptr; // the processes that the batch is dealt out to, for mean and deviation; nullptr: it is whole
};

// All return a scalar. f, g, p: K tensors of B x C x H x W. Scales whose tensors are undefined have no part.
torch::Tensor loss_kd(const Features &f, const Features &g, bool per_position, const EasyPositions &easy = {});
torch::Tensor loss_recon(const Features &p_noisy, const Features &p);
torch::Tensor loss_contrast(const Features &f_noisy, const Features &p, double margin);
torch::Tensor loss_ssot(const Features &p, const torch::Tensor &permutation, Ssot mode, const SinkhornOptions &options);

// A loss and the share of rows that were told right, both scalars.
struct Judged {
  torch::Tensor loss, accuracy;
};

// Cross-entropy, averaged over rows. logits: B x N or B x N x H x W; labels: as many int64 in 0..N-1 as there are rows
// (B or B x H x W, row-major), -1 for rows to ignore, on the CPU. smoothing: the share of the target that all N classes
// have in common.
Judged loss_class(const torch::Tensor &logits, const torch::Tensor &labels, double smoothing);

// NT-Xent (Chen et al., 2020, "A Simple Framework for Contrastive Learning"): the cross-entropy of finding row 2i + 1
// for row 2i, and the other way round, among all other rows. z: B x D, rows of length 1, B even.
Judged loss_pair(const torch::Tensor &z, double temperature);

} // namespace rdpp
