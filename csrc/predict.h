// RD++'s prediction: images through all networks to anomaly maps and scores.
#pragma once

#include "anomaly_map.h"
#include "networks.h"

namespace rdpp {

struct Networks {
  TeacherImpl *teacher;
  ProjectionImpl *projection; // nullptr: the bottleneck reads the teacher's features (RD)
  BottleneckImpl *bottleneck;
  StudentImpl *student;
};

struct Prediction {
  torch::Tensor map;   // B x S x S
  torch::Tensor score; // B
};

// How a map is made of the scales' distances.
struct MapOptions {
  double sigma; // Gaussian, pixels
  MapTerms terms;
};

// x: B x 3 x S x S, normalised; all networks in eval mode. Scores are the maps' maxima.
Prediction predict(const Networks &n, const torch::Tensor &x, const MapOptions &options);

} // namespace rdpp
