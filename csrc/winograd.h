// 3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional
// Neural Networks", 2016): a quarter of the multiplications, for float32 on processors with AVX-512.
#pragma once

#include <torch/torch.h>

namespace rdpp {

// Whether this way is there for a 3x3 convolution of stride 1, and faster than the direct one, for images of C x H x W
// and O output channels.
bool winograd_pays(int64_t C, int64_t H, int64_t W, int64_t O);

// Weights in the form that winograd_conv takes. Points, what inputs are multiplied by, are four times as many numbers
// as weights: few weights are kept in points, of many every call makes them anew.
struct WinogradWeights {
  torch::Tensor by_lanes; // O/16 x C x 9 x 16, or undefined
  torch::Tensor points;   // 36 x O/panel x C x panel, or undefined

  bool defined() const { return by_lanes.defined() || points.defined(); }
  int64_t inputs() const { return points.defined() ? points.size(2) : by_lanes.size(1); }
  int64_t outputs() const { return points.defined() ? points.size(1) * points.size(3) : by_lanes.size(0) * 16; }
};

// weight: O x C x 3 x 3
WinogradWeights winograd_weights(const torch::Tensor &weight);

// x: B x C x H x W, channels last -> B x O x H x W, channels last: the convolution with a border of one zero, plus bias
// (O, or undefined), plus add (of the result's shape, or undefined), then ReLU where asked for.
torch::Tensor winograd_conv(const torch::Tensor &x, const WinogradWeights &weights, const torch::Tensor &bias,
                            const torch::Tensor &add, bool relu);

// The same as winograd_conv without add and ReLU, for weights as they are (O x C x 3 x 3), with gradients.
torch::Tensor winograd_conv_learning(const torch::Tensor &x, const torch::Tensor &weight, const torch::Tensor &bias);

// Whether that is faster than the direct way.
bool winograd_pays_learning(const torch::Tensor &x, const torch::Tensor &weight);

} // namespace rdpp
