// What the files of the C boundary share: handles to and from tensors, and the one guard around what they do.
#pragma once

#include "rdpp.h"

#include <torch/torch.h>

#include <array>
#include <memory>
#include <shared_mutex>
#include <stdexcept>
#include <string>

#include "allocator.h"
#include "contention.h"
#include "networks.h"

namespace rdpp {

// An error of a kind that its type does not tell: one of rdpp.h's codes.
class Error : public std::runtime_error {
public:
  Error(int32_t code, const std::string &message) : std::runtime_error(message), code(code) {}
  const int32_t code;
};

// The exception that is being handled, as an error that is the caller's.
rdpp_error failure() noexcept;

// Runs f and turns what it throws into an error. For what computes nothing: the thread stays as it is, which may be one
// of a program that has OpenMP code of its own.
template <class F> rdpp_error asked(F &&f) noexcept {
  try {
    f();
    return nullptr;
  } catch (...) {
    return failure();
  }
}

// Gives this thread the wanted number of threads.
void set_threads();

// The same for what computes: the thread is set up as rdpp.h promises.
template <class F> rdpp_error computed(F &&f) noexcept {
  return asked([&] {
    set_threads();
    Watch watch;
    torch::AutoGradMode grad(true);
    CachedAllocations cached;
    f();
  });
}

// Held alone while a CUDA graph is recorded, when nothing else in the process may use CUDA.
std::shared_mutex &recording();

// The same for all but what records: it waits until nothing is recorded.
template <class F> rdpp_error guarded(F &&f) noexcept {
  return computed([&] {
    std::shared_lock<std::shared_mutex> among(recording());
    f();
  });
}

// Threads of one operation on the CPU, from now on.
void want_threads(int32_t n);

const torch::Tensor &at_tensor(rdpp_tensor t);
torch::Device at_device(int32_t device);
torch::Dtype at_dtype(int32_t dtype);
Features features(const rdpp_tensor x[kScales]);

template <class T> T &opened(T *object) {
  if (!object) throw std::invalid_argument("a network, a predictor or an optimiser is NULL or closed");
  return *object;
}

rdpp_tensor handle(torch::Tensor t);

using Made = std::array<std::unique_ptr<torch::Tensor>, kScales>;
Made make(const Features &f);
void give(Made made, rdpp_tensor out[kScales]);
// All K handles or, when memory runs out on the way, none.
void give(const Features &f, rdpp_tensor out[kScales]);

} // namespace rdpp
