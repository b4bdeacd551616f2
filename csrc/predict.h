// A prediction: images through all networks to anomaly maps and scores.
#pragma once

#include "anomaly_map.h"
#include "networks.h"

#include <array>
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

// How a map is made of the scales' distances.
struct MapOptions {
  double sigma; // Gaussian, pixels
  MapTerms terms;

  bool operator==(const MapOptions &o) const { return sigma == o.sigma && terms == o.terms; }
};

// x: B x 3 x S x S, normalised; all networks in eval mode.
Prediction predict(const Networks &n, const torch::Tensor &x, const MapOptions &options);

// Of teacher, projection (or 0), bottleneck and student: numbers that no other state of a network in the process has.
using Versions = std::array<uint64_t, 4>;

// The same on a CUDA device by a graph, which is recorded at the first call with images of a shape and replayed at
// every other: hundreds of small kernels are then started at once. Only where the environment has RDPP_CUDA_GRAPHS=1,
// as no GPU has run it yet; without, and on other devices, it is predict itself. While a graph is recorded nothing else
// in the process may use CUDA: predictions wait for each other, but a program must not open models meanwhile.
class Predictor {
public:
  Predictor();
  ~Predictor();
  Prediction run(const Networks &n, const Versions &versions, const torch::Tensor &x, const MapOptions &options);

private:
  struct Graphs;
  std::unique_ptr<Graphs> graphs_;
};

} // namespace rdpp
