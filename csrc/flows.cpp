// The C boundary's FastFlow.
#include "flows.h"

#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>

#include "fastflow.h"

using namespace rdpp;
using torch::Tensor;

namespace {

FastFlowImpl &flow(const rdpp_module *m) { return network<FastFlowImpl>(m, RDPP_FASTFLOW); }

// The options where they can be, else throws. The bounds are far above use, and low enough that no size overflows.
FastFlowOptions possible(const rdpp_fastflow_options *o) {
  if (!o) throw std::invalid_argument("a flow needs options");
  TORCH_CHECK(o->side >= 32 && o->side <= 1 << 14 && o->side % 32 == 0, "flows for images of side ", o->side,
              "; use a multiple of 32");
  TORCH_CHECK(o->steps >= 1 && o->steps <= 1 << 10 && o->hidden > 0 && o->hidden <= 64 && o->clamp > 0 &&
                  std::isfinite(o->clamp),
              "a flow of ", o->steps, " steps, a hidden share of ", o->hidden, " and a clamp of ", o->clamp);
  return {o->side, o->steps, o->hidden, o->pointwise != 0, o->clamp, o->affine != 0};
}

} // namespace

rdpp_error rdpp_fastflow_new(const char *arch, const rdpp_fastflow_options *options, int32_t dtype, int32_t device,
                             uint64_t seed, int32_t flags, rdpp_module **out) {
  return guarded([&] {
    auto net = std::make_shared<FastFlowImpl>(arch_named(arch), possible(options), seed);
    *out = finish(RDPP_FASTFLOW, net, dtype, device, seed, flags).release();
  });
}

rdpp_error rdpp_fastflow_normalise(const rdpp_module *m, const rdpp_tensor f[RDPP_SCALES], rdpp_tensor x[RDPP_SCALES]) {
  return guarded([&] {
    torch::AutoGradMode grad(records(m));
    give(flow(m).normalise(features(f)), x);
  });
}

rdpp_error rdpp_fastflow(const rdpp_module *m, const rdpp_tensor x[RDPP_SCALES], rdpp_tensor z[RDPP_SCALES],
                         rdpp_tensor log_det[RDPP_SCALES]) {
  return guarded([&] {
    torch::AutoGradMode grad(records(m));
    Features values, logs;
    auto result = flow(m).forward(features(x), /*with_log_det=*/true);
    for (int k = 0; k < kScales; k++) values[k] = result[k].y, logs[k] = result[k].log_det;
    Made made = make(values);
    give(logs, log_det);
    give(std::move(made), z);
  });
}

rdpp_error rdpp_fastflow_inverse(const rdpp_module *m, const rdpp_tensor z[RDPP_SCALES], rdpp_tensor x[RDPP_SCALES]) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    give(flow(m).inverse(features(z)), x);
  });
}

rdpp_error rdpp_loss_flow(const rdpp_tensor z[RDPP_SCALES], const rdpp_tensor log_det[RDPP_SCALES], rdpp_tensor *out) {
  return guarded([&] { *out = handle(loss_flow(features(z), features(log_det))); });
}

namespace rdpp {

Predictor::Method flows(const std::vector<const rdpp_module *> &modules, const rdpp_flow_map_options &o) {
  if (modules.size() != 2) {
    throw std::invalid_argument("a teacher and a flow are needed, got " + std::to_string(modules.size()) + " networks");
  }
  auto teacher = shared<TeacherImpl>(modules[0], RDPP_TEACHER);
  auto flow = shared<FastFlowImpl>(modules[1], RDPP_FASTFLOW);
  FlowMapOptions options = {o.sigma, o.likelihood != 0, o.top};
  return [=](const Tensor &x) { return predict_flow(*teacher, *flow, x, options); };
}

} // namespace rdpp
