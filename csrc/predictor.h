// Predictions of one model by any method, as often as wanted.
#pragma once

#include "predict.h"
#include "rdpp.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace rdpp {

// Numbers that no other states of networks in the process have.
using Versions = std::vector<uint64_t>;

// On a CUDA device predictions can be a graph, which is recorded at the first call with images of a shape and replayed
// at every other: hundreds of small kernels are then started at once. Only where the environment has
// RDPP_CUDA_GRAPHS=1, as no GPU has run it yet; without, and on other devices, it is the method itself. While a graph
// is recorded all other calls of rdpp.h that compute wait, since nothing else in the process may use CUDA then.
class Predictor {
public:
  // From normalised images, B x 3 x S x S, outside autograd.
  using Method = std::function<Prediction(const torch::Tensor &x)>;

  explicit Predictor(Method method);
  Predictor(Predictor &&) noexcept;
  ~Predictor();
  // versions: of the networks that the method reads.
  Prediction run(const torch::Tensor &x, const Versions &versions);

private:
  struct Graphs;
  Method method_;
  std::unique_ptr<Graphs> graphs_;
};

MapOptions at_map_options(const rdpp_map_options &options);

} // namespace rdpp
