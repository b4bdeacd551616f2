// Convolutions, alone and with the batch norms, sums and ReLUs behind them: plain ones for training, folded and frozen
// ones for prediction.
#pragma once

#include "winograd.h"

#include <ATen/core/ivalue.h>
#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace rdpp {

class Group;

// A convolution, a depthwise one (of each channel alone; in = out), or a transposed one whose stride is its kernel (2);
// parameters `weight` and, where asked for, `bias`.
struct ConvImpl : torch::nn::Module {
  enum Kind { kPlain, kTransposed, kDepthwise };
  ConvImpl(int64_t in, int64_t out, int64_t kernel, int64_t stride, Kind kind = kPlain, bool with_bias = false);
  // In mixed precision x is bfloat16, and so are the product and the copy of the weights it is made with.
  torch::Tensor forward(const torch::Tensor &x);
  // Throws where the weight is gone, see release.
  void need_weight() const;

  torch::Tensor weight, bias;
  int64_t stride, padding, groups; // of channels that see each other alone
  Kind kind;
  bool channels_last = false;   // see use_channels_last
  bool frozen = false;          // see freeze
  bool released = false;        // see release
  std::shared_ptr<Group> group; // processes that a batch norm behind it learns with; nullptr: none
  int64_t out, kernel;          // channels and side, which a weight that is gone does not tell

  // Convolution and batch norm as one, for inputs of a size and type on the CPU, or for all on a device.
  struct Folded {
    std::vector<int64_t> input; // of the forms for the CPU: C, H, W
    torch::ScalarType type = torch::kFloat32;
    c10::IValue onednn;       // for oneDNN's operation
    WinogradWeights winograd; // for winograd_conv
    torch::Tensor winograd_bias;
    struct Plain {
      torch::Tensor weight, bias;
    };
    std::map<torch::ScalarType, Plain> plain; // for libtorch's convolution, by the type of its input
  };
  std::vector<Folded> folded; // the oldest first, see remember_sizes
  size_t sizes = 1;           // how many of them are kept
};
TORCH_MODULE(Conv);

// Convolution, batch norm (or none: nullptr), sum with add (or undefined) and ReLU (or not).
torch::Tensor conv_bn(Conv &conv, torch::nn::BatchNorm2d &bn, const torch::Tensor &x, bool relu,
                      const torch::Tensor &add = {});

// A convolution of stride 1 without padding whose float32 products are never rounded to TF32, whatever the process's
// settings allow to others. x: B x C x H x W, weight: N x C x h x w, bias: N.
torch::Tensor exact_conv(const torch::Tensor &x, const torch::Tensor &weight, const torch::Tensor &bias);

// Draws fresh parameters from `seed` as the released code does: Kaiming normal (fan_out, relu) for plain and depthwise
// convolutions without bias, PyTorch's defaults for transposed ones and for those with bias.
void initialise(torch::nn::Module &m, uint64_t seed);

// Lays weights and activations out channels last, the order that convolutions are fastest in on CPUs and on tensor
// cores. Names, shapes and results stay, up to rounding; without it networks compute as PyTorch's own do, bit for bit.
void use_channels_last(torch::nn::Module &m);

// on: from now on the weights stay as they are, and outside autograd every convolution runs with its batch norm folded
// in, in the fastest way there is for the device and type; what is rearranged for that is so once, not at every call.
// For channels-last networks in eval mode; others stay as they are.
void freeze(torch::nn::Module &m, bool on);

// For a network that sees inputs of so many sizes in turn: each of them has its own frozen form of the weights, instead
// of one that is made anew whenever the size changes.
void remember_sizes(torch::nn::Module &m, size_t sizes);

// For a frozen network that will see inputs of one size and type alone, or of as many sizes as it remembers, of any
// batch, and outside autograd: every convolution lets go of its weights as soon as it has the forms of them. Another
// size or type is an error from then on.
void release(torch::nn::Module &m);

// For a network that remembers sizes and has seen all of them: where it is released, the convolutions to which some of
// the sizes are the same let go of their weights too.
void seen_all_sizes(torch::nn::Module &m);

} // namespace rdpp
