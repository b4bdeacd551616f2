// Adam (Kingma and Ba, 2015), where asked for with decoupled weight decay (AdamW: Loshchilov and Hutter, 2019), as
// multi-tensor operations over parameter groups.
#pragma once

#include <torch/torch.h>

#include <vector>

namespace rdpp {

class Adam {
public:
  Adam(double beta1, double beta2, double eps) : beta1_(beta1), beta2_(beta2), eps_(eps) {}

  struct Group {
    double learning_rate;
    double weight_decay = 0; // per unit of learning rate, of parameters of more than one dimension, which are weights
    bool decays_all = false; // of the others too
    double penalty = 0;      // of which times each parameter is added to its gradient, once gradients are clipped
    std::vector<torch::Tensor> params, exp_avg, exp_avg_sq;
    std::vector<torch::Tensor> greatest; // of AMSGrad: the greatest exp_avg_sq so far; else none
    std::vector<int64_t> steps;          // updates that each parameter has seen
  };

  void add_group(const std::vector<torch::Tensor> &params, double learning_rate);
  // AMSGrad (Reddi et al., "On the Convergence of Adam and Beyond", ICLR 2018) for a group.
  void use_amsgrad(size_t group);
  // Updates every parameter that has a gradient, then clears the gradients.
  void step();

  std::vector<Group> groups;
  double clip = 0; // > 0: longer gradients, of all groups together, are shortened to this length

private:
  void clip_gradients();

  double beta1_, beta2_, eps_;
};

} // namespace rdpp
