// What libtorch does slowly on the CPU, or otherwise for every batch, for tensors that lie channels last: pooling,
// means, and the anomaly map. Outside autograd.
#pragma once

#include <torch/torch.h>

#include <vector>

namespace rdpp {

// Whether x has four dimensions, lies channels last on the CPU, and autograd is off.
bool lies_channels_last(const torch::Tensor &x);

// x: B x C x H x W, float32 or bfloat16 -> B x C x ceil(H/2) x ceil(W/2): maxima of 3x3 squares that are 2 apart, with
// a border of one.
torch::Tensor max_pool_3x3(const torch::Tensor &x);

// x: B x C x H x W, float32 or bfloat16 -> B x C x 1 x 1: means over positions, each image's summed in one order
// whatever batch and threads are.
torch::Tensor mean_of_positions(const torch::Tensor &x);

// x, float32 or bfloat16, becomes x / (1 + exp(-x)) and 1 / (1 + exp(-x)): of a number the same wherever it lies.
void swish_in_place(const torch::Tensor &x);
void sigmoid_in_place(const torch::Tensor &x);

// a, b: B x C x H x W, float32 -> B x H x W: 1 - cosine of the C values at each position. floor: the least product of
// their squared lengths.
torch::Tensor cosine_distance(const torch::Tensor &a, const torch::Tensor &b, double floor);

// map: B x H x W, float32 -> B x S x S, bilinear, the corners' centres on each other; added to out, of that shape.
void add_upsampled(const torch::Tensor &map, const torch::Tensor &out);

// map: B x H x W, float32, kernel: 2R + 1 weights -> the same shape: the convolution along H and then along W, with
// places outside mirrored at the border (period 2H, 2W).
torch::Tensor convolve_mirrored(const torch::Tensor &map, const std::vector<float> &kernel);

} // namespace rdpp
