#include "sinkhorn.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rdpp {

namespace {

using torch::Tensor;

constexpr double kDistanceFloor = 1e-8; // under the square root of p = 1, keeps its gradient finite
constexpr double kNoWeight = -100000;   // the logarithm that stands for a weight of zero

// C(x_i, y_j) = |x_i - y_j|^p / p: P x N x M
Tensor cost(const Tensor &x, const Tensor &y, double p) {
  Tensor xx = x.square().sum(-1).unsqueeze(2);     // P x N x 1
  Tensor yy = y.square().sum(-1).unsqueeze(1);     // P x 1 x M
  Tensor xy = torch::matmul(x, y.transpose(1, 2)); // P x N x M
  Tensor squared = xx - 2 * xy + yy;
  return p == 2 ? squared / 2 : squared.clamp_min(kDistanceFloor).sqrt();
}

double bounding_box_diameter(const std::vector<Tensor> &x, const std::vector<Tensor> &y) {
  torch::NoGradGuard no_grad;
  double largest = 0;
  for (size_t i = 0; i < x.size(); i++) {
    Tensor points = torch::cat({x[i].flatten(0, -2), y[i].flatten(0, -2)}); // (P*N + P*M) x D
    Tensor sides = std::get<0>(points.max(0)) - std::get<0>(points.min(0)); // D
    largest = std::max(largest, sides.norm().item<double>());
  }
  return largest;
}

// [d^p, exp(e) for e from p ln d down to (not including) p ln blur in steps of p ln scaling, blur^p]
std::vector<double> epsilon_schedule(double diameter, const SinkhornOptions &o) {
  std::vector<double> schedule = {std::pow(diameter, o.p)};
  double first = o.p * std::log(diameter), last = o.p * std::log(o.blur), step = o.p * std::log(o.scaling);
  int64_t count = static_cast<int64_t>(std::ceil((last - first) / step));
  for (int64_t i = 0; i < count; i++) schedule.push_back(std::exp(first + static_cast<double>(i) * step));
  schedule.push_back(std::pow(o.blur, o.p));
  return schedule;
}

// Pads the last dimensions to L points; the logarithm of no weight at all keeps them out of every soft-min.
Tensor pad_cost(const Tensor &c, int64_t L) {
  return torch::constant_pad_nd(c, {0, L - c.size(2), 0, L - c.size(1)}, 0);
}
Tensor pad_log(const Tensor &log_weights, int64_t L) {
  return torch::constant_pad_nd(log_weights, {0, L - log_weights.size(1)}, -std::numeric_limits<double>::infinity());
}

Tensor log_weights(const Tensor &w) { return torch::where(w > 0, w.log(), torch::full_like(w, kNoWeight)); }

// softmin_eps(C, h)_i = -eps logsumexp_j(h_j - C_ij / eps). C: ... x L x L, h: ... x L
Tensor softmin(double eps, const Tensor &C, const Tensor &h) {
  return -eps * (h.unsqueeze(-2) - C / eps).logsumexp(-1);
}

// The solver proper. x[i]: P x N x D_i, y[i]: P x M x D_i; a: n*P x N, b: n*P x M, n = x.size().
Tensor solve(const std::vector<Tensor> &x, const std::vector<Tensor> &y, const Tensor &a, const Tensor &b,
             const SinkhornOptions &o) {
  double diameter = o.diameter > 0 ? o.diameter : bounding_box_diameter(x, y);
  if (!(diameter > 0)) diameter = o.blur; // all points coincide: the finest scale is the only one
  bool unbalanced = o.reach > 0;
  double rho = std::pow(o.reach, o.p);
  auto damping = [&](double eps) { return unbalanced ? 1 / (1 + eps / rho) : 1.0; };

  // The soft-min updates are one tensor operation: slot 0 is f_ba over C_xy, 1 is g_ab over C_yx and, where
  // de-biased, 2 is f_aa over C_xx and 3 is g_bb over C_yy. L points each; slots x n*P x L (x L).
  int64_t N = a.size(1), M = b.size(1), L = std::max(N, M);
  auto costs = [&](const std::vector<Tensor> &from, const std::vector<Tensor> &to) {
    std::vector<Tensor> c;
    for (size_t i = 0; i < from.size(); i++) c.push_back(pad_cost(cost(from[i], to[i].detach(), o.p), L));
    return torch::cat(c); // n*P x L x L
  };
  Tensor a_log = pad_log(log_weights(a), L), b_log = pad_log(log_weights(b), L);
  std::vector<Tensor> slots = {costs(x, y), costs(y, x)}, logs = {b_log, a_log};
  if (o.debias) {
    slots.insert(slots.end(), {costs(x, x), costs(y, y)});
    logs.insert(logs.end(), {a_log, b_log});
  }
  Tensor C = torch::stack(slots), h = torch::stack(logs);
  // The dual of slot 0 is slot 1 and the other way round; slots 2 and 3 are their own.
  Tensor dual = torch::tensor(o.debias ? std::vector<int64_t>{1, 0, 2, 3} : std::vector<int64_t>{1, 0},
                              torch::dtype(torch::kInt64).device(C.device()));

  Tensor potentials;
  double eps = 0;
  {
    torch::NoGradGuard no_grad;
    std::vector<double> schedule = epsilon_schedule(diameter, o);
    eps = schedule.front();
    potentials = damping(eps) * softmin(eps, C, h);
    for (double next : schedule) {
      eps = next;
      Tensor updated = damping(eps) * softmin(eps, C, h + potentials.index_select(0, dual) / eps);
      potentials = (potentials + updated) / 2;
    }
    h = h + potentials.index_select(0, dual) / eps;
  }
  potentials = damping(eps) * softmin(eps, C, h); // the one update that is differentiated

  auto slot = [&](int64_t i, int64_t points) { return potentials[i].narrow(1, 0, points); };
  Tensor f = slot(0, N), g = slot(1, M); // n*P x N, n*P x M
  if (!unbalanced) {
    if (o.debias) f = f - slot(2, N), g = g - slot(3, M);
    return (a * f).sum(1) + (b * g).sum(1);
  }
  auto mass = [&](const Tensor &potential) { return torch::exp(-potential / rho); };
  Tensor fa = o.debias ? mass(slot(2, N)) - mass(f) : 1 - mass(f);
  Tensor gb = o.debias ? mass(slot(3, M)) - mass(g) : 1 - mass(g);
  return (rho + eps / 2) * ((a * fa).sum(1) + (b * gb).sum(1));
}

void check(const SinkhornOptions &o) {
  TORCH_CHECK(o.p == 1 || o.p == 2, "sinkhorn: p must be 1 or 2, got ", o.p);
  TORCH_CHECK(o.blur > 0, "sinkhorn: blur must be positive, got ", o.blur);
  TORCH_CHECK(o.scaling > 0 && o.scaling < 1, "sinkhorn: scaling must lie between 0 and 1, got ", o.scaling);
}

Tensor uniform_weights(int64_t P, const Tensor &points) { // points: ... x N x D -> P x N
  int64_t N = points.size(-2);
  return torch::full({P, N}, 1.0 / static_cast<double>(N), points.options().requires_grad(false));
}

} // namespace

Tensor sinkhorn(const Tensor &x, const Tensor &y, const Tensor &a, const Tensor &b, const SinkhornOptions &options) {
  check(options);
  TORCH_CHECK(x.dim() == 3 && y.dim() == 3 && x.size(0) == y.size(0) && x.size(2) == y.size(2),
              "sinkhorn: x must be P x N x D and y P x M x D, got ", x.sizes(), " and ", y.sizes());
  TORCH_CHECK(x.size(1) > 0 && y.size(1) > 0, "sinkhorn: a point cloud is empty");
  TORCH_CHECK(!a.defined() || a.sizes() == x.sizes().slice(0, 2), "sinkhorn: a must be P x N, got ", a.sizes());
  TORCH_CHECK(!b.defined() || b.sizes() == y.sizes().slice(0, 2), "sinkhorn: b must be P x M, got ", b.sizes());
  return solve({x}, {y}, a.defined() ? a : uniform_weights(x.size(0), x),
               b.defined() ? b : uniform_weights(y.size(0), y), options);
}

Tensor sinkhorn_clouds(const std::vector<Tensor> &x, const std::vector<Tensor> &y, const SinkhornOptions &options) {
  check(options);
  std::vector<Tensor> xs, ys;
  for (size_t i = 0; i < x.size(); i++) {
    xs.push_back(x[i].unsqueeze(0)); // 1 x N x D_i
    ys.push_back(y[i].unsqueeze(0));
  }
  int64_t n = static_cast<int64_t>(x.size());
  return solve(xs, ys, uniform_weights(n, x.front()), uniform_weights(n, y.front()), options);
}

} // namespace rdpp
