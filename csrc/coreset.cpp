#include "coreset.h"

#include "vectorised.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace rdpp {

using torch::Tensor;

namespace {

constexpr int64_t kLanes = 16; // sums that are made side by side
constexpr int64_t kSlice = 32; // dimensions between two looks at the sum

// |a - b|^2, or once the sum has reached limit, what it is then, which is limit or more: squares only add to it.
RDPP_VECTORISED float squared_distance(const float *__restrict a, const float *__restrict b, int64_t n, float limit) {
  float sums[kLanes] = {};
  float sum = 0;
  int64_t i = 0;
  while (i + kLanes <= n) {
    int64_t end = std::min(n - kLanes, i + kSlice - kLanes);
    for (; i <= end; i += kLanes) {
      for (int64_t j = 0; j < kLanes; j++) {
        float d = a[i + j] - b[i + j];
        sums[j] += d * d;
      }
    }
    sum = 0;
    for (int64_t j = 0; j < kLanes; j++) sum += sums[j];
    if (sum >= limit) return sum;
  }
  for (; i < n; i++) {
    float d = a[i] - b[i];
    sum += d * d;
  }
  return sum;
}

constexpr float kAny = std::numeric_limits<float>::infinity();

} // namespace

Tensor squared_distances(const Tensor &rows, const Tensor &row) {
  if (!rows.is_cpu() || rows.scalar_type() != torch::kFloat32) return (rows - row).square().sum(1);
  Tensor x = rows.contiguous(), to = row.contiguous(), y = torch::empty({x.size(0)}, x.options());
  const float *in = x.data_ptr<float>(), *point = to.data_ptr<float>();
  float *out = y.data_ptr<float>();
  int64_t D = x.size(1);
  at::parallel_for(0, x.size(0), 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) out[i] = squared_distance(in + i * D, point, D, kAny);
  });
  return y;
}

void project(const Tensor &points, const Tensor &signs, Tensor &out) {
  int64_t N = points.size(0), D = points.size(1), K = signs.size(1);
  TORCH_CHECK(signs.size(0) == D, "a projection of ", signs.size(0), " dimensions, of points that have ", D);
  if (!points.is_cpu()) {
    at::NoTF32Guard exact; // of this thread
    out.copy_(points.to(torch::kFloat32).matmul(signs.to(points.device(), torch::kFloat32)));
    return;
  }
  Tensor dense = signs.to(torch::kCPU, torch::kFloat32).contiguous();
  std::vector<std::vector<int64_t>> plus(K), minus(K); // of each column: where it has 1, and where -1
  for (int64_t d = 0; d < D; d++) {
    for (int64_t k = 0; k < K; k++) {
      float sign = dense.data_ptr<float>()[d * K + k];
      if (sign != 0) (sign > 0 ? plus : minus)[k].push_back(d);
    }
  }
  float *sums = out.data_ptr<float>();
  constexpr int64_t kRows = 256; // of float32 at a time
  for (int64_t first = 0; first < N; first += kRows) {
    Tensor rows = points.narrow(0, first, std::min(kRows, N - first)).to(torch::kFloat32).contiguous();
    const float *in = rows.data_ptr<float>();
    at::parallel_for(0, rows.size(0), 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        for (int64_t k = 0; k < K; k++) {
          float sum = 0;
          for (int64_t d : plus[k]) sum += in[i * D + d];
          for (int64_t d : minus[k]) sum -= in[i * D + d];
          sums[(first + i) * K + k] = sum;
        }
      }
    });
  }
}

Tensor rows_of(const std::vector<Tensor> &tensors, const std::vector<int64_t> &numbers) {
  Tensor all = torch::empty({static_cast<int64_t>(numbers.size()), tensors.at(0).size(1)}, tensors[0].options());
  for (size_t i = 0; i < numbers.size(); i++) {
    int64_t number = numbers[i];
    size_t t = 0;
    while (number >= tensors.at(t).size(0)) number -= tensors[t++].size(0);
    all[static_cast<int64_t>(i)].copy_(tensors[t][number]);
  }
  return all;
}

struct Coreset::Search {
  virtual ~Search() = default;
  virtual void grow(int64_t n) = 0;
  virtual std::vector<int64_t> chosen() const = 0;
};

// On a device: every point is compared with every chosen one, and no number leaves the device before it is asked for.
struct Coreset::Device : Coreset::Search {
  Tensor points, distance; // N x K; squares, N, of chosen points below 0
  std::vector<Tensor> order;

  Device(const Tensor &of, const std::vector<int64_t> &start) : points(of) {
    distance = torch::zeros({points.size(0)}, points.options());
    for (int64_t i : start) distance += squared_distances(points, points[i]).sqrt();
    distance = (distance / static_cast<double>(start.size())).square();
  }

  void grow(int64_t n) override {
    n = std::min(n, points.size(0) - static_cast<int64_t>(order.size()));
    for (; n > 0; n--) {
      Tensor next = distance.argmax(0, /*keepdim=*/true); // 1
      distance = torch::minimum(distance, squared_distances(points, points.index_select(0, next)));
      distance.index_fill_(0, next, -1);
      order.push_back(next);
    }
  }

  std::vector<int64_t> chosen() const override {
    if (order.empty()) return {};
    Tensor all = torch::cat(order).to(torch::kCPU);
    const int64_t *p = all.data_ptr<int64_t>();
    return {p, p + all.numel()};
  }
};

// On the CPU most points are compared with few of the chosen ones. A distance only falls as more are chosen, so that
// one which is out of date is a bound, and where it is below the distance of the point that is farthest, nobody need
// know how far below. What is chosen is the same as if all had been compared.
struct Coreset::Host : Coreset::Search {
  Tensor points;               // N x K
  std::vector<float> distance; // squares, to the first seen[i] chosen points at least; of chosen points below 0
  std::vector<int32_t> seen;
  std::vector<int32_t> ranked; // all points, the candidates first
  std::vector<int64_t> order;
  std::vector<float> centres; // the chosen points, one after the other

  Host(const Tensor &of, const std::vector<int64_t> &start) : points(of) {
    int64_t N = points.size(0), K = points.size(1);
    TORCH_CHECK(N <= std::numeric_limits<int32_t>::max(), "a coreset of ", N, " points; 2^31 - 1 at most");
    const float *p = points.data_ptr<float>();
    distance.resize(N), seen.resize(N), ranked.resize(N);
    std::iota(ranked.begin(), ranked.end(), 0);
    at::parallel_for(0, N, 1024, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        double sum = 0;
        for (int64_t s : start) sum += std::sqrt(squared_distance(p + i * K, p + s * K, K, kAny));
        double mean = sum / static_cast<double>(start.size());
        distance[i] = static_cast<float>(mean * mean);
      }
    });
  }

  // Whether a is farther than b, or as far and before it.
  bool ahead(int32_t a, int32_t b) const { return distance[a] > distance[b] || (distance[a] == distance[b] && a < b); }

  // Compares a point with the chosen ones that it has not been compared with, until it is nearer than least.
  void refresh(int32_t i, float least) {
    int64_t K = points.size(1), chosen = static_cast<int64_t>(order.size());
    const float *p = points.data_ptr<float>() + i * K;
    while (seen[i] < chosen && distance[i] >= least) {
      float d = squared_distance(p, &centres[seen[i]++ * K], K, distance[i]);
      distance[i] = std::min(d, distance[i]);
    }
  }

  void choose(int32_t next) {
    const float *p = points.data_ptr<float>() + next * points.size(1);
    centres.insert(centres.end(), p, p + points.size(1));
    order.push_back(next);
    distance[next] = -1;
  }

  void grow(int64_t n) override {
    int64_t N = points.size(0);
    n = std::min(n, N - static_cast<int64_t>(order.size()));
    while (n > 0) {
      // The candidates are those that seem the farthest; no other is farther than the bound, the first of the rest.
      int64_t count = std::min(std::max<int64_t>(1024, N / 32), N);
      auto end = ranked.begin() + count;
      if (count < N)
        std::nth_element(ranked.begin(), end, ranked.end(), [&](int32_t a, int32_t b) { return ahead(a, b); });
      const int32_t *bound = count < N ? &*end : nullptr;
      int64_t grain = 1024;
      for (; n > 0; n--) {
        float least = bound ? distance[*bound] : 0;
        at::parallel_for(0, count, grain, [&](int64_t first, int64_t last) {
          for (int64_t i = first; i < last; i++) refresh(ranked[i], least);
        });
        int32_t best = *std::min_element(ranked.begin(), end, [&](int32_t a, int32_t b) { return ahead(a, b); });
        if (bound && ahead(*bound, best)) break;
        choose(best);
        grain = 1 << 15; // one more comparison each is less than waking other threads takes
      }
    }
  }

  std::vector<int64_t> chosen() const override { return order; }
};

Coreset::Coreset(const Tensor &points, const std::vector<int64_t> &start) {
  TORCH_CHECK(points.dim() == 2 && points.size(0) > 0, "a coreset of points N x K is needed, got ", points.sizes());
  TORCH_CHECK(!start.empty(), "a coreset needs a starting point");
  for (int64_t i : start) {
    TORCH_CHECK(i >= 0 && i < points.size(0), "starting point ", i, " of ", points.size(0));
  }
  TORCH_CHECK(points.scalar_type() == torch::kFloat32 && points.is_contiguous(), "points that do not lie in float32");
  torch::NoGradGuard no_grad;
  for (int64_t first = 0, part = 1 << 16; first < points.size(0); first += part) { // as they take as much again at once
    Tensor some = points.narrow(0, first, std::min(part, points.size(0) - first));
    TORCH_CHECK(some.isfinite().all().item<bool>(), "patches that are infinite or no numbers");
  }
  if (points.is_cpu()) {
    search_ = std::make_unique<Host>(points, start);
  } else {
    search_ = std::make_unique<Device>(points, start);
  }
}

Coreset::~Coreset() = default;

void Coreset::grow(int64_t n) {
  torch::NoGradGuard no_grad;
  search_->grow(n);
}

std::vector<int64_t> Coreset::chosen() const { return search_->chosen(); }

} // namespace rdpp
