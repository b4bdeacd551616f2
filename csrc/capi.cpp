// The C boundary's losses, optimiser, maps and scripts. The rest of it is in process.cpp, tensor.cpp, module.cpp,
// predictor.cpp and bank.cpp.
#include "boundary.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adam.h"
#include "group.h"
#include "losses.h"
#include "module.h"
#include "predictor.h"
#include "script.h"

using namespace rdpp;
using torch::Tensor;

struct rdpp_adam {
  rdpp::Adam adam;
};

namespace {

// Those of the scales that a loss is of: the others are NULL.
Features given(const rdpp_tensor x[kScales]) {
  Features f;
  bool any = false;
  for (int k = 0; k < kScales; k++) {
    if (!x[k]) continue;
    f[k] = at_tensor(x[k]);
    any = true;
  }
  if (!any) throw std::invalid_argument("features of no scale");
  return f;
}

void same_scales(const Features &a, const Features &b) {
  for (int k = 0; k < kScales; k++) {
    if (a[k].defined() != b[k].defined()) throw std::invalid_argument("features are not of the same scales");
  }
}

void give(const Judged &judged, rdpp_tensor *loss, rdpp_tensor *accuracy) {
  auto first = std::make_unique<Tensor>(judged.loss);
  *accuracy = handle(judged.accuracy);
  *loss = first.release();
}

SinkhornOptions at_options(const rdpp_sinkhorn_options &o) {
  return {o.p, o.blur, o.reach, o.diameter, o.scaling, o.debias != 0};
}

std::vector<Tensor> scalars(const rdpp_tensor *terms, int64_t n) {
  if (n < 1) throw std::invalid_argument("no terms");
  std::vector<Tensor> all;
  for (int64_t i = 0; i < n; i++) {
    all.push_back(at_tensor(terms[i]));
    if (all.back().numel() != 1) throw std::invalid_argument("term " + std::to_string(i) + " is no scalar");
  }
  return all;
}

} // namespace

// Losses

rdpp_error rdpp_loss_kd(const rdpp_tensor f[RDPP_SCALES], const rdpp_tensor g[RDPP_SCALES], int32_t per_position,
                        double easy_cut, double easy_below, rdpp_group *group, rdpp_tensor *out) {
  return guarded([&] {
    EasyPositions easy{easy_cut, easy_below, group ? group->group.get() : nullptr};
    *out = handle(loss_kd(features(f), features(g), per_position != 0, easy));
  });
}

rdpp_error rdpp_loss_recon(const rdpp_tensor p_noisy[RDPP_SCALES], const rdpp_tensor p[RDPP_SCALES], rdpp_tensor *out) {
  return guarded([&] {
    Features noisy = given(p_noisy), clean = given(p);
    same_scales(noisy, clean);
    *out = handle(loss_recon(noisy, clean));
  });
}

rdpp_error rdpp_loss_contrast(const rdpp_tensor f_noisy[RDPP_SCALES], const rdpp_tensor p[RDPP_SCALES], double margin,
                              rdpp_tensor *out) {
  return guarded([&] {
    Features noisy = given(f_noisy), projected = given(p);
    same_scales(noisy, projected);
    *out = handle(loss_contrast(noisy, projected, margin));
  });
}

rdpp_error rdpp_loss_ssot(const rdpp_tensor p[RDPP_SCALES], const int64_t *permutation, int64_t B, int32_t mode,
                          const rdpp_sinkhorn_options *options, rdpp_tensor *out) {
  return guarded([&] {
    if (mode < RDPP_SSOT_PAIRWISE || mode > RDPP_SSOT_OFF) throw std::invalid_argument("unknown mode of L_SSOT");
    Features projected = given(p);
    Tensor rows = torch::from_blob(const_cast<int64_t *>(permutation), {B}, torch::kInt64).clone();
    *out = handle(loss_ssot(projected, rows, static_cast<Ssot>(mode), at_options(*options)));
  });
}

rdpp_error rdpp_sinkhorn(rdpp_tensor x, rdpp_tensor y, rdpp_tensor a, rdpp_tensor b,
                         const rdpp_sinkhorn_options *options, rdpp_tensor *out) {
  return guarded([&] {
    Tensor none;
    *out = handle(
        sinkhorn(at_tensor(x), at_tensor(y), a ? at_tensor(a) : none, b ? at_tensor(b) : none, at_options(*options)));
  });
}

rdpp_error rdpp_loss_class(rdpp_tensor logits, const int64_t *labels, int64_t n, double smoothing, rdpp_tensor *loss,
                           rdpp_tensor *accuracy) {
  return guarded([&] {
    Tensor wanted = torch::from_blob(const_cast<int64_t *>(labels), {n}, torch::kInt64).clone();
    give(loss_class(at_tensor(logits), wanted, smoothing), loss, accuracy);
  });
}

rdpp_error rdpp_loss_pair(rdpp_tensor z, double temperature, rdpp_tensor *loss, rdpp_tensor *accuracy) {
  return guarded([&] { give(loss_pair(at_tensor(z), temperature), loss, accuracy); });
}

rdpp_error rdpp_weighted_sum(const rdpp_tensor *terms, const double *weights, int64_t n, rdpp_tensor *out) {
  return guarded([&] {
    std::vector<Tensor> all = scalars(terms, n);
    Tensor sum = all[0] * weights[0];
    for (int64_t i = 1; i < n; i++) sum = sum + all[i] * weights[i];
    *out = handle(sum);
  });
}

rdpp_error rdpp_sum(rdpp_tensor t, rdpp_tensor *out) {
  return guarded([&] { *out = handle(at_tensor(t).sum()); });
}

rdpp_error rdpp_backward(rdpp_tensor loss) {
  return guarded([&] { at_tensor(loss).backward(); });
}

rdpp_error rdpp_scalars(const rdpp_tensor *terms, int64_t n, double *values) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    std::vector<Tensor> all = scalars(terms, n);
    for (Tensor &t : all) t = t.reshape({}).to(torch::kFloat64);
    torch::from_blob(values, {n}, torch::kFloat64).copy_(torch::stack(all));
  });
}

// Adam

rdpp_error rdpp_adam_new(double beta1, double beta2, double eps, rdpp_adam **out) {
  return guarded([&] { *out = new rdpp_adam{rdpp::Adam(beta1, beta2, eps)}; });
}

void rdpp_adam_free(rdpp_adam *a) { delete a; }

rdpp_error rdpp_adam_add(rdpp_adam *a, const rdpp_module *m, double learning_rate) {
  return guarded([&] {
    std::vector<Tensor> params;
    for (const rdpp_module::Entry &entry : opened(m).state) {
      if (entry.trainable) params.push_back(entry.tensor);
    }
    opened(a).adam.add_group(params, learning_rate);
  });
}

rdpp_error rdpp_adam_set_rate(rdpp_adam *a, int64_t group, double learning_rate) {
  return guarded([&] { opened(a).adam.groups.at(static_cast<size_t>(group)).learning_rate = learning_rate; });
}

rdpp_error rdpp_adam_set_decay(rdpp_adam *a, int64_t group, double weight_decay) {
  return guarded([&] { opened(a).adam.groups.at(static_cast<size_t>(group)).weight_decay = weight_decay; });
}

rdpp_error rdpp_adam_set_decay_of_all(rdpp_adam *a, int64_t group, double weight_decay) {
  return guarded([&] {
    Adam::Group &g = opened(a).adam.groups.at(static_cast<size_t>(group));
    g.weight_decay = weight_decay, g.decays_all = true;
  });
}

rdpp_error rdpp_adam_set_amsgrad(rdpp_adam *a, int64_t group) {
  return guarded([&] { opened(a).adam.use_amsgrad(static_cast<size_t>(group)); });
}

rdpp_error rdpp_adam_set_penalty(rdpp_adam *a, int64_t group, double penalty) {
  return guarded([&] { opened(a).adam.groups.at(static_cast<size_t>(group)).penalty = penalty; });
}

rdpp_error rdpp_adam_set_clip(rdpp_adam *a, double length) {
  return guarded([&] {
    if (!(length >= 0))
      throw std::invalid_argument("a gradient's length must be 0 or more, got " + std::to_string(length));
    opened(a).adam.clip = length;
  });
}

rdpp_error rdpp_adam_sum(rdpp_adam *a, rdpp_group *g) {
  return guarded([&] {
    if (!g) throw std::invalid_argument("a group is NULL or closed");
    for (Adam::Group &group : opened(a).adam.groups) g->group->sum_gradients(group.params);
  });
}

rdpp_error rdpp_adam_step(rdpp_adam *a) {
  return guarded([&] { opened(a).adam.step(); });
}

rdpp_error rdpp_adam_state(rdpp_adam *a, int64_t group, int64_t i, rdpp_tensor *exp_avg, rdpp_tensor *exp_avg_sq,
                           int64_t *step) {
  return guarded([&] {
    Adam::Group &g = opened(a).adam.groups.at(static_cast<size_t>(group));
    size_t at = static_cast<size_t>(i);
    auto first = std::make_unique<Tensor>(g.exp_avg.at(at)), second = std::make_unique<Tensor>(g.exp_avg_sq.at(at));
    *step = g.steps.at(at);
    *exp_avg = first.release();
    *exp_avg_sq = second.release();
  });
}

rdpp_error rdpp_adam_greatest(rdpp_adam *a, int64_t group, int64_t i, rdpp_tensor *exp_avg_sq) {
  return guarded([&] {
    Adam::Group &g = opened(a).adam.groups.at(static_cast<size_t>(group));
    *exp_avg_sq = g.greatest.empty() ? nullptr : handle(g.greatest.at(static_cast<size_t>(i)));
  });
}

rdpp_error rdpp_adam_set_step(rdpp_adam *a, int64_t group, int64_t i, int64_t step) {
  return guarded([&] { opened(a).adam.groups.at(static_cast<size_t>(group)).steps.at(static_cast<size_t>(i)) = step; });
}

// Inference

rdpp_error rdpp_anomaly_map(const rdpp_tensor f[RDPP_SCALES], const rdpp_tensor g[RDPP_SCALES], int64_t S,
                            const rdpp_map_options *options, rdpp_tensor *raw, rdpp_tensor *smoothed) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    MapOptions o = at_map_options(*options);
    auto map = std::make_unique<Tensor>(anomaly_map(features(f), features(g), S, o.terms));
    *smoothed = handle(smooth(*map, o.sigma));
    *raw = map.release();
  });
}

// TorchScript

rdpp_error rdpp_script_save(const char *source, const char *const *names, const rdpp_tensor *tensors, int64_t n,
                            const char *const *extra, int64_t n_extra, int32_t fd) {
  return guarded([&] {
    std::vector<std::pair<std::string, Tensor>> named;
    for (int64_t i = 0; i < n; i++) named.emplace_back(names[i], at_tensor(tensors[i]));
    std::vector<std::pair<std::string, std::string>> entries;
    for (int64_t i = 0; i < n_extra; i++) entries.emplace_back(extra[2 * i], extra[2 * i + 1]);
    save_script(source, named, entries, fd);
  });
}
