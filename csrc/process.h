// What the library sets in its process, once: no more than its networks need.
#pragma once

#include <torch/torch.h>

namespace rdpp {

// Before a network is made: oneDNN's cache never drops a primitive, and for CUDA products of float32 are not rounded to
// TF32 and cuDNN's algorithms are chosen by trial. rdpp_set_arithmetic changes the latter two.
void prepare_process(const torch::Device &device);

} // namespace rdpp
