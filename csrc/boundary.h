// What the files of the C boundary share: handles to and from tensors, and the one guard around what they do.
#pragma once

#include "rdpp.h"

#include <torch/torch.h>

#include <array>
#include <memory>
#include <stdexcept>

#include "networks.h"

namespace rdpp {

// Sets this thread up as rdpp.h promises.
void enter();
// The exception that is being handled, as an owned message.
rdpp_error failure() noexcept;

// Runs f on a thread that is set up, and turns what it throws into an error.
template <class F> rdpp_error guarded(F &&f) noexcept {
  try {
    enter();
    torch::AutoGradMode grad(true);
    f();
    return nullptr;
  } catch (...) {
    return failure();
  }
}

// Threads of one operation on the CPU, from now on.
void want_threads(int32_t n);

const torch::Tensor &at_tensor(rdpp_tensor t);
torch::Device at_device(int32_t device);
torch::Dtype at_dtype(int32_t dtype);
Features features(const rdpp_tensor x[kScales]);

template <class T> T &opened(T *object) {
  if (!object) throw std::invalid_argument("a network or an optimiser is NULL or closed");
  return *object;
}

rdpp_tensor handle(torch::Tensor t);

using Made = std::array<std::unique_ptr<torch::Tensor>, kScales>;
Made make(const Features &f);
void give(Made made, rdpp_tensor out[kScales]);
// All K handles or, when memory runs out on the way, none.
void give(const Features &f, rdpp_tensor out[kScales]);

} // namespace rdpp
