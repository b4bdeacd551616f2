// The loss terms of RD++ (paper, section 4.3) and the anomaly map (Figure 4).
#pragma once

#include "networks.h"
#include "sinkhorn.h"

namespace rdpp {

enum class Ssot { kPairwise, kBatch, kOff };

// All return a scalar. f, g, p: K tensors of B x C x H x W.
torch::Tensor loss_kd(const Features &f, const Features &g, bool per_position);
torch::Tensor loss_recon(const Features &p_noisy, const Features &p);
torch::Tensor loss_contrast(const Features &f_noisy, const Features &p, double margin);
torch::Tensor loss_ssot(const Features &p, const torch::Tensor &permutation, Ssot mode, const SinkhornOptions &options);

// Sum over scales of 1 - cos over channels, each upsampled to S x S: B x S x S.
torch::Tensor anomaly_map(const Features &f, const Features &g, int64_t S);

// Gaussian blur of B x S x S maps, truncated at 4 sigma, edges mirrored with the edge pixel repeated.
torch::Tensor smooth(const torch::Tensor &map, double sigma);

} // namespace rdpp
