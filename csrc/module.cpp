#include "module.h"

#include <atomic>
#include <utility>

#include "efficientnet.h"
#include "head.h"
#include "process.h"

namespace rdpp {

using torch::Tensor;

namespace {

// No two states of networks in a process share a version.
uint64_t next_version() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

std::shared_ptr<TeacherImpl> build_teacher(const std::string &name, int32_t flags) {
  if (name != EfficientNetImpl::kName) return std::make_shared<ResNetImpl>(arch_named(name));
  if (flags & RDPP_TRAINABLE) throw std::invalid_argument(name + " is a frozen teacher; a ResNet can learn");
  return std::make_shared<EfficientNetImpl>();
}

std::shared_ptr<torch::nn::Module> build(int32_t kind, const std::string &name, int32_t flags) {
  if (kind == RDPP_TEACHER) return build_teacher(name, flags);
  const Arch arch = arch_named(name);
  switch (kind) {
  case RDPP_PROJECTION:
    return std::make_shared<ProjectionImpl>(arch, flags & RDPP_COARSEST ? kScales - 1 : 0);
  case RDPP_BOTTLENECK:
    return std::make_shared<BottleneckImpl>(arch);
  case RDPP_STUDENT:
    return std::make_shared<StudentImpl>(arch);
  }
  throw std::invalid_argument("unknown kind of network " + std::to_string(kind));
}

// The parameters and buffers of m in PyTorch's state-dict order: a module's own first, then its children's.
void collect(torch::nn::Module &m, const std::string &prefix, bool trainable, std::vector<rdpp_module::Entry> &state) {
  for (auto &p : m.named_parameters(false)) state.push_back({prefix + p.key(), p.value(), trainable});
  for (auto &b : m.named_buffers(false)) state.push_back({prefix + b.key(), b.value(), false});
  for (auto &child : m.named_children()) collect(*child.value(), prefix + child.key() + ".", trainable, state);
}

// Module::to would turn the counts of batches into floating-point numbers too.
void set_float_type(torch::nn::Module &m, torch::Dtype dtype) {
  torch::NoGradGuard no_grad;
  for (auto list : {m.parameters(), m.buffers()}) {
    for (Tensor &t : list) {
      if (t.is_floating_point()) t.set_data(t.to(dtype));
    }
  }
}

// Throws where the module was released.
void need_state(const rdpp_module *m) {
  if (opened(m).released) throw std::invalid_argument("a released network has no state; open the model once more");
}

Features teach(const rdpp_module *m, const Tensor &x) {
  TeacherImpl &teacher = network<TeacherImpl>(m, RDPP_TEACHER);
  torch::AutoGradMode grad(torch::GradMode::is_enabled() && m->trainable && m->net->is_training());
  return teacher.forward(x);
}

} // namespace

bool records(const rdpp_module *m) { return torch::GradMode::is_enabled() && !opened(m).released; }

void need(const rdpp_module *m, int32_t wanted) {
  static const char *const names[] = {"teacher", "projection", "bottleneck",       "student",   "head",
                                      "bank",    "flow",       "cross-scale flow", "descriptor"};
  if (opened(m).kind != wanted) {
    throw std::invalid_argument(std::string("a ") + names[wanted] + " is needed, this is a " + names[m->kind]);
  }
}

std::unique_ptr<rdpp_module> finish(int32_t kind, std::shared_ptr<torch::nn::Module> net, int32_t dtype, int32_t device,
                                    uint64_t seed, int32_t flags) {
  prepare_process(at_device(device));
  auto m = std::make_unique<rdpp_module>();
  m->kind = kind;
  m->net = std::move(net);
  m->version = std::make_shared<uint64_t>(next_version());
  m->trainable = kind != RDPP_TEACHER || (flags & RDPP_TRAINABLE);
  if (!(flags & RDPP_BLANK)) initialise(*m->net, seed);
  m->net->to(at_device(device));
  set_float_type(*m->net, at_dtype(dtype));
  if (flags & RDPP_CHANNELS_LAST) use_channels_last(*m->net);
  m->net->train(m->trainable);
  for (Tensor &p : m->net->parameters()) p.requires_grad_(m->trainable);
  collect(*m->net, "", m->trainable, m->state);
  return m;
}

} // namespace rdpp

using namespace rdpp;

rdpp_error rdpp_module_new(int32_t kind, const char *arch, int32_t dtype, int32_t device, uint64_t seed, int32_t flags,
                           rdpp_module **out) {
  return guarded([&] { *out = finish(kind, build(kind, arch, flags), dtype, device, seed, flags).release(); });
}

rdpp_error rdpp_head_new(int32_t objective, const char *arch, int64_t outputs, int32_t dtype, int32_t device,
                         uint64_t seed, rdpp_module **out) {
  return guarded([&] {
    if (objective < RDPP_CLASS || objective > RDPP_PAIR) throw std::invalid_argument("unknown objective of a head");
    auto net = std::make_shared<HeadImpl>(arch_named(arch), static_cast<Objective>(objective), outputs);
    *out = finish(RDPP_HEAD, net, dtype, device, seed, RDPP_CHANNELS_LAST).release();
  });
}

void rdpp_module_free(rdpp_module *m) { delete m; }

rdpp_error rdpp_module_train(rdpp_module *m, int32_t on) {
  return guarded([&] {
    need_state(m);
    bool training = on != 0 && opened(m).trainable;
    m->net->train(training);
    freeze(*m->net, !training);
    *m->version = next_version();
  });
}

rdpp_error rdpp_module_release(rdpp_module *m) {
  return guarded([&] {
    if (opened(m).net->is_training()) throw std::invalid_argument("a network is released in eval mode");
    release(*m->net);
    if (m->kind == RDPP_BOTTLENECK) { // which keeps one that takes no part in forward
      torch::Tensor &spare = network<BottleneckImpl>(m, RDPP_BOTTLENECK).conv4->weight;
      spare.set_data(torch::empty({0}, spare.options()));
    }
    m->state.clear();
    m->released = true;
  });
}

rdpp_error rdpp_module_state_len(const rdpp_module *m, int64_t *n) {
  return guarded([&] {
    need_state(m);
    *n = static_cast<int64_t>(m->state.size());
  });
}

rdpp_error rdpp_module_state(const rdpp_module *m, int64_t i, const char **name, rdpp_tensor *out, int32_t *trainable) {
  return guarded([&] {
    need_state(m);
    const rdpp_module::Entry &entry = m->state.at(static_cast<size_t>(i));
    *out = handle(entry.tensor);
    *name = entry.name.c_str();
    *trainable = entry.trainable;
  });
}

rdpp_error rdpp_module_average(rdpp_module *into, const rdpp_module *from, double weight) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    need_state(into), need_state(from);
    std::vector<rdpp_module::Entry> &to = into->state;
    const std::vector<rdpp_module::Entry> &by = from->state;
    if (into->kind != from->kind || to.size() != by.size()) {
      throw std::invalid_argument("networks of two kinds have no average");
    }
    for (size_t i = 0; i < to.size(); i++) {
      TORCH_CHECK(to[i].tensor.sizes() == by[i].tensor.sizes(), to[i].name, " has shapes ", to[i].tensor.sizes(),
                  " and ", by[i].tensor.sizes());
    }
    for (size_t i = 0; i < to.size(); i++) {
      if (to[i].tensor.is_floating_point()) {
        to[i].tensor.lerp_(by[i].tensor, weight);
      } else {
        to[i].tensor.copy_(by[i].tensor);
      }
    }
  });
}

rdpp_error rdpp_teacher_ignore_level(rdpp_module *m, const double std[3]) {
  return guarded([&] {
    need_state(m);
    network<TeacherImpl>(m, RDPP_TEACHER).ignore_level({std[0], std[1], std[2]});
    *m->version = next_version();
  });
}

rdpp_error rdpp_teacher(const rdpp_module *m, rdpp_tensor x, rdpp_tensor f[RDPP_SCALES]) {
  return guarded([&] { give(teach(m, at_tensor(x)), f); });
}

rdpp_error rdpp_teacher_pair(const rdpp_module *m, rdpp_tensor clean, rdpp_tensor noisy, rdpp_tensor f[RDPP_SCALES]) {
  return guarded([&] { give(teach(m, torch::cat({at_tensor(clean), at_tensor(noisy)})), f); });
}

rdpp_error rdpp_projection(const rdpp_module *m, const rdpp_tensor f[RDPP_SCALES], rdpp_tensor p[RDPP_SCALES]) {
  return guarded([&] {
    torch::AutoGradMode grad(records(m));
    give(network<ProjectionImpl>(m, RDPP_PROJECTION).forward(features(f)), p);
  });
}

rdpp_error rdpp_bottleneck(const rdpp_module *m, const rdpp_tensor p[RDPP_SCALES], rdpp_tensor *z) {
  return guarded([&] {
    torch::AutoGradMode grad(records(m));
    *z = handle(network<BottleneckImpl>(m, RDPP_BOTTLENECK).forward(features(p)));
  });
}

rdpp_error rdpp_student(const rdpp_module *m, rdpp_tensor z, rdpp_tensor g[RDPP_SCALES]) {
  return guarded([&] {
    torch::AutoGradMode grad(records(m));
    give(network<StudentImpl>(m, RDPP_STUDENT).forward(at_tensor(z)), g);
  });
}

rdpp_error rdpp_head(const rdpp_module *m, int64_t k, rdpp_tensor f_k, rdpp_tensor *y) {
  return guarded([&] { *y = handle(network<HeadImpl>(m, RDPP_HEAD).forward(k, at_tensor(f_k))); });
}
