// 3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional
// Neural Networks", 2016): a quarter of the multiplications, for float32 on processors with AVX-512.
#pragma once

#include <torch/torch.h>

namespace rdpp {

// Whether this way is there for a 3x3 convolution of stride 1, and faster than the direct one, for images of C x H x W
// and O output channels.
bool winograd_pays(int64_t C, int64_t H, int64_t W, int64_t O);

// weight: O x C x 3 x 3 -> the weights in the form that winograd_conv takes.
torch::Tensor winograd_weights(const torch::Tensor &weight);

// x: B x C x H x W, channels last -> B x O x H x W, channels last: the convolution with a border of one zero, plus bias
// (O, or undefined), plus add (of the result's shape, or undefined), then ReLU where asked for.
torch::Tensor winograd_conv(const torch::Tensor &x, const torch::Tensor &weights, const torch::Tensor &bias,
                            const torch::Tensor &add, bool relu);

// The same as winograd_conv without add and ReLU, for weights as they are (O x C x 3 x 3), with gradients.
torch::Tensor winograd_conv_learning(const torch::Tensor &x, const torch::Tensor &weight, const torch::Tensor &bias);

// Whether that is faster than the direct way.
bool winograd_pays_learning(const torch::Tensor &x, const torch::Tensor &weight);

} // namespace rdpp
