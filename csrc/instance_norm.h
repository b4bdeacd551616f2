// Instance normalisation and LeakyReLU in one, the tail of every projection block.
#pragma once

#include <torch/torch.h>

namespace rdpp {

// x: B x C x H x W -> the same shape: every channel of every image is brought to mean 0 and variance 1 (plus eps),
// then negative values are multiplied by slope > 0.
torch::Tensor instance_norm_leaky_relu(const torch::Tensor &x, double eps, double slope);

} // namespace rdpp
