#include "coreset.h"

#include "vectorised.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

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

Tensor project(const Tensor &points, const Tensor &signs) {
  int64_t N = points.size(0), D = points.size(1), K = signs.size(1);
  TORCH_CHECK(signs.size(0) == D, "a projection of ", signs.size(0), " dimensions, of points that have ", D);
  if (!points.is_cpu()) return points.to(torch::kFloat32).matmul(signs.to(points.device(), torch::kFloat32));
  Tensor dense = signs.to(torch::kCPU, torch::kFloat32).contiguous();
  std::vector<std::vector<int64_t>> plus(K), minus(K); // of each column: where it has 1, and where -1
  for (int64_t d = 0; d < D; d++) {
    for (int64_t k = 0; k < K; k++) {
      float sign = dense.data_ptr<float>()[d * K + k];
      if (sign != 0) (sign > 0 ? plus : minus)[k].push_back(d);
    }
  }
  Tensor y = torch::empty({N, K}, dense.options());
  float *out = y.data_ptr<float>();
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
          out[(first + i) * K + k] = sum;
        }
      }
    });
  }
  return y;
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

// On the CPU every point stands in the list of the chosen point it is nearest to. By the triangle inequality a new
// chosen point q takes none of a list whose own is c, unless one lies farther from c than half of |c - q|: most lists
// are passed over, and most points of the others. What is chosen is the same as if all had been compared.
struct Coreset::Host : Coreset::Search {
  struct List {
    std::vector<int32_t> members;
    float farthest = -1; // square of its farthest member's distance; below 0: it has none
    int32_t which = -1;  // that member
  };

  // A part of a list, which one thread goes through.
  struct Part {
    size_t list;
    int64_t begin, end, kept;
    float half;                 // members up to this square cannot be taken
    std::vector<int32_t> taken; // by the new point
    float farthest;             // of the kept ones
    int32_t which;
  };

  static constexpr int64_t kPart = 2048;  // members
  static constexpr int64_t kAlone = 4096; // what fewer visits are worth is less than waking the other threads

  Tensor points; // N x K
  std::vector<float> distance;
  std::vector<List>
      lists; // the first is of points that are nearer to the starting points' average than to any chosen one
  std::vector<int64_t> order;
  std::vector<float> centres; // the chosen points, one after the other

  Host(const Tensor &of, const std::vector<int64_t> &start) : points(of.contiguous()) {
    int64_t N = points.size(0), K = points.size(1);
    TORCH_CHECK(N <= std::numeric_limits<int32_t>::max(), "a coreset of ", N, " points; 2^31 - 1 at most");
    const float *p = points.data_ptr<float>();
    distance.resize(N);
    at::parallel_for(0, N, 1024, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        double sum = 0;
        for (int64_t s : start) sum += std::sqrt(squared_distance(p + i * K, p + s * K, K, kAny));
        double mean = sum / static_cast<double>(start.size());
        distance[i] = static_cast<float>(mean * mean);
      }
    });
    lists.resize(1);
    List &all = lists[0];
    all.members.resize(N);
    for (int64_t i = 0; i < N; i++) {
      all.members[i] = static_cast<int32_t>(i);
      if (distance[i] > all.farthest) all.farthest = distance[i], all.which = static_cast<int32_t>(i);
    }
  }

  void visit(Part &part, const float *q) {
    const float *p = points.data_ptr<float>();
    int64_t K = points.size(1);
    int32_t *members = lists[part.list].members.data();
    part.kept = part.begin, part.farthest = -1, part.which = -1;
    for (int64_t i = part.begin; i < part.end; i++) {
      int32_t at = members[i];
      float own = distance[at];
      if (own > part.half) {
        float d = squared_distance(p + at * K, q, K, own);
        if (d < own) {
          distance[at] = d;
          part.taken.push_back(at);
          continue;
        }
      }
      members[part.kept++] = at;
      if (own > part.farthest || (own == part.farthest && at < part.which)) part.farthest = own, part.which = at;
    }
  }

  // The lists that may hold points for a new one at q, in parts.
  std::vector<Part> parts(const float *q, int64_t *visits) {
    int64_t K = points.size(1);
    std::vector<Part> all;
    for (size_t l = 0; l < lists.size(); l++) {
      if (lists[l].farthest < 0) continue;
      float half = -1;
      if (l > 0) half = squared_distance(&centres[(l - 1) * K], q, K, kAny) / 4.0001f; // rounded to the safe side
      if (lists[l].farthest <= half) continue;
      int64_t n = static_cast<int64_t>(lists[l].members.size());
      *visits += n;
      for (int64_t begin = 0; begin < n; begin += kPart) {
        all.push_back({l, begin, std::min(begin + kPart, n), 0, half, {}, -1, -1});
      }
    }
    return all;
  }

  void choose(int32_t next) {
    const float *q = points.data_ptr<float>() + next * points.size(1);
    int64_t visits = 0;
    std::vector<Part> work = parts(q, &visits);
    auto go = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) visit(work[i], q);
    };
    if (visits < kAlone) {
      go(0, static_cast<int64_t>(work.size()));
    } else {
      at::parallel_for(0, static_cast<int64_t>(work.size()), 1, go);
    }
    List own;
    for (size_t i = 0; i < work.size();) { // the parts of a list, put together again
      List &list = lists[work[i].list];
      size_t l = work[i].list;
      int64_t kept = 0;
      list.farthest = -1, list.which = -1;
      for (; i < work.size() && work[i].list == l; i++) {
        const Part &part = work[i];
        std::copy(list.members.begin() + part.begin, list.members.begin() + part.kept, list.members.begin() + kept);
        kept += part.kept - part.begin;
        if (part.farthest > list.farthest || (part.farthest == list.farthest && part.which < list.which)) {
          list.farthest = part.farthest, list.which = part.which;
        }
        own.members.insert(own.members.end(), part.taken.begin(), part.taken.end());
      }
      list.members.resize(kept);
    }
    for (int32_t i : own.members) {
      if (distance[i] > own.farthest || (distance[i] == own.farthest && i < own.which)) {
        own.farthest = distance[i], own.which = i;
      }
    }
    lists.push_back(std::move(own));
    centres.insert(centres.end(), q, q + points.size(1));
    order.push_back(next);
  }

  // Takes a point that is chosen out of its list, whatever its distance.
  void remove(int32_t next) {
    for (List &list : lists) {
      if (list.which != next) continue;
      list.members.erase(std::remove(list.members.begin(), list.members.end(), next), list.members.end());
      list.farthest = -1, list.which = -1;
      for (int32_t i : list.members) {
        if (distance[i] > list.farthest || (distance[i] == list.farthest && i < list.which)) {
          list.farthest = distance[i], list.which = i;
        }
      }
      return;
    }
  }

  void grow(int64_t n) override {
    for (; n > 0; n--) {
      const List *best = nullptr;
      for (const List &list : lists) {
        if (list.farthest < 0) continue;
        if (!best || list.farthest > best->farthest || (list.farthest == best->farthest && list.which < best->which)) {
          best = &list;
        }
      }
      if (!best) return;
      int32_t next = best->which;
      remove(next);
      choose(next);
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
  torch::NoGradGuard no_grad;
  if (points.is_cpu()) {
    search_ = std::make_unique<Host>(points.to(torch::kFloat32), start);
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
