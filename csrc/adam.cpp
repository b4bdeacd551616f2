#include "adam.h"

#include <cmath>
#include <map>

namespace rdpp {

void Adam::add_group(const std::vector<torch::Tensor> &params, double learning_rate) {
  Group group;
  group.learning_rate = learning_rate;
  for (const torch::Tensor &p : params) {
    group.params.push_back(p);
    group.exp_avg.push_back(torch::zeros_like(p));
    group.exp_avg_sq.push_back(torch::zeros_like(p));
    group.steps.push_back(0);
  }
  groups.push_back(std::move(group));
}

void Adam::use_amsgrad(size_t group) {
  Group &g = groups.at(group);
  g.greatest.clear();
  for (const torch::Tensor &v : g.exp_avg_sq) g.greatest.push_back(v.clone());
}

void Adam::clip_gradients() {
  std::vector<torch::Tensor> grads, norms;
  for (Group &group : groups) {
    for (torch::Tensor &p : group.params) {
      if (p.grad().defined()) grads.push_back(p.grad());
    }
  }
  if (grads.empty()) return;
  for (const torch::Tensor &norm : torch::_foreach_norm(grads)) norms.push_back(norm.to(torch::kFloat64));
  // On the device: reading the length would wait for it.
  torch::Tensor factor = (clip / torch::stack(norms).norm()).clamp_max(1);
  for (torch::Tensor &grad : grads) grad.mul_(factor.to(grad.scalar_type()));
}

void Adam::step() {
  torch::NoGradGuard no_grad;
  if (clip > 0) clip_gradients();
  for (Group &group : groups) {
    // Parameters that a network never uses have no gradient and are left alone; the others have seen the same
    // number of updates, save after loading a state from elsewhere.
    struct Batch {
      std::vector<torch::Tensor> params, grads, exp_avg, exp_avg_sq, greatest;
    };
    std::map<int64_t, Batch> by_step;
    for (size_t i = 0; i < group.params.size(); i++) {
      torch::Tensor &grad = group.params[i].mutable_grad();
      if (!grad.defined()) continue;
      Batch &batch = by_step[++group.steps[i]];
      batch.params.push_back(group.params[i]);
      batch.grads.push_back(grad);
      batch.exp_avg.push_back(group.exp_avg[i]);
      batch.exp_avg_sq.push_back(group.exp_avg_sq[i]);
      if (!group.greatest.empty()) batch.greatest.push_back(group.greatest[i]);
      grad.reset();
    }
    for (auto &[t, batch] : by_step) {
      std::vector<torch::Tensor> decayed;
      for (const torch::Tensor &p : batch.params) {
        if (group.weight_decay != 0 && (group.decays_all || p.dim() > 1)) decayed.push_back(p);
      }
      if (!decayed.empty()) torch::_foreach_mul_(decayed, 1 - group.learning_rate * group.weight_decay);
      double correction1 = 1 - std::pow(beta1_, static_cast<double>(t));
      double correction2 = 1 - std::pow(beta2_, static_cast<double>(t));
      if (group.penalty != 0) torch::_foreach_add_(batch.grads, batch.params, group.penalty);
      torch::_foreach_mul_(batch.exp_avg, beta1_);
      torch::_foreach_add_(batch.exp_avg, batch.grads, 1 - beta1_);
      torch::_foreach_mul_(batch.exp_avg_sq, beta2_);
      torch::_foreach_addcmul_(batch.exp_avg_sq, batch.grads, batch.grads, 1 - beta2_);
      if (!batch.greatest.empty()) torch::_foreach_maximum_(batch.greatest, batch.exp_avg_sq);
      std::vector<torch::Tensor> denominator =
          torch::_foreach_sqrt(batch.greatest.empty() ? batch.exp_avg_sq : batch.greatest);
      torch::_foreach_div_(denominator, std::sqrt(correction2));
      torch::_foreach_add_(denominator, eps_);
      torch::_foreach_addcdiv_(batch.params, batch.exp_avg, denominator, -group.learning_rate / correction1);
    }
  }
}

} // namespace rdpp
