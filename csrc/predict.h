// A prediction: images through all networks to anomaly maps and scores.
#pragma once

#include "networks.h"

#include <cstdint>
#include <memory>

namespace rdpp {

struct Networks {
  TeacherImpl *teacher;
  ProjectionImpl *projection; // nullptr: the bottleneck reads the teacher's features (RD)
  BottleneckImpl *bottleneck;
  StudentImpl *student;
};

struct Prediction {
  torch::Tensor map;   // B x S x S
  torch::Tensor score; // B, the map's maxima
};

// x: B x 3 x S x S, normalised; all networks in eval mode.
Prediction predict(const Networks &n, const torch::Tensor &x, double sigma);

// The same on a CUDA device by a graph, which is recorded at the first call with images of a shape and type, and
// replayed at every other: hundreds of small kernels are then started at once. Elsewhere it is predict itself.
class Predictor {
public:
  Predictor();
  ~Predictor();
  // version: changes when a network's weights do.
  Prediction run(const Networks &n, uint64_t version, const torch::Tensor &x, double sigma);

private:
  struct Graphs;
  std::unique_ptr<Graphs> graphs_;
};

} // namespace rdpp
