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

// How a map is made of the scales' distances, and a score of the map.
struct MapOptions {
  double sigma; // Gaussian, pixels
  MapTerms terms;
  double top; // share of the map's pixels, the highest ones, whose mean is the score; 0: the maximum
};

// Of maps, B x S x S, the mean of the highest pixels: B. A single one where the share is less than two.
torch::Tensor highest(const torch::Tensor &map, double share);

// x: B x 3 x S x S, normalised; all networks in eval mode.
Prediction predict(const Networks &n, const torch::Tensor &x, const MapOptions &options);

} // namespace rdpp
