#include "flow.h"

namespace rdpp {

using torch::Tensor;

Tensor SoftClamp::operator()(const Tensor &s) const {
  constexpr double kTwoOverPi = 0.63661977236758134;
  return form == kTanh ? s.tanh() * limit : (s / limit).atan() * (kTwoOverPi * limit);
}

Flowed couple(const Tensor &x, const Affine &a, const SoftClamp &clamp, bool with_log_det) {
  Tensor s = clamp(a.log_scale);
  Flowed result{x * s.exp() + a.shift, {}};
  if (with_log_det) result.log_det = s.flatten(1).sum(1);
  return result;
}

Tensor uncouple(const Tensor &y, const Affine &a, const SoftClamp &clamp) {
  return (y - a.shift) * clamp(a.log_scale).neg().exp();
}

Tensor permute_channels(const Tensor &x, const Tensor &order) { return x.index_select(1, order); }

Tensor restore_channels(const Tensor &y, const Tensor &order) { return y.index_select(1, order.argsort()); }

} // namespace rdpp
