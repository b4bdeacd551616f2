// The greedy coreset of PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022): of
// many points those that leave none far from all of them.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace rdpp {

// |x - row|^2 for every row x of rows, float32: R x D and D -> R. Each sum is made in an order of its own, which
// neither the number of threads nor the other rows change.
torch::Tensor squared_distances(const torch::Tensor &rows, const torch::Tensor &row);

// points: N x D, float16 or float32 -> out: N x K, float32: the sums that the columns of signs, D x K of -1, 0 and 1,
// ask for. A random projection but for a factor.
void project(const torch::Tensor &points, const torch::Tensor &signs, torch::Tensor &out);

// The rows of that number, counted through all tensors, N x D each: one tensor of the first one's type and device.
torch::Tensor rows_of(const std::vector<torch::Tensor> &tensors, const std::vector<int64_t> &numbers);

// Chooses points one by one, each the farthest from those chosen before it. To begin with, a point is as far as it is
// on average from the starting points, which are not chosen themselves. Of equally far points the first is chosen.
class Coreset {
public:
  // points: N x K, float32, which are neither copied nor changed; start: numbers of points.
  Coreset(const torch::Tensor &points, const std::vector<int64_t> &start);
  ~Coreset();
  // Chooses n more, or all that are left.
  void grow(int64_t n);
  // The numbers of the chosen points, in the order of their choice.
  std::vector<int64_t> chosen() const;

private:
  struct Search; // a way of searching: the processor's, or a device's
  struct Host;
  struct Device;
  std::unique_ptr<Search> search_;
};

} // namespace rdpp
