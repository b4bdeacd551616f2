#include "group.h"

#include "boundary.h"
#include "cosine.h"
#include "module.h"

#if defined(RDPP_GLOO) || defined(RDPP_NCCL)
#define RDPP_C10D
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#endif
#ifdef RDPP_GLOO
#ifndef USE_C10D_GLOO
#define USE_C10D_GLOO
#endif
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef RDPP_NCCL
#ifndef USE_C10D_NCCL
#define USE_C10D_NCCL
#endif
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace rdpp {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void Group::end(const std::string &why) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!why_.empty()) return;
    why_ = why;
  }
  wake();
}

std::string Group::ended() {
  std::lock_guard<std::mutex> lock(mutex_);
  return why_;
}

void Group::check() {
  std::string why = ended();
  if (!why.empty()) throw Error(RDPP_PEER_LOST, why);
}

void Group::sum(Tensor &t) {
  torch::NoGradGuard no_grad;
  std::vector<Tensor> none;
  run(Operation::kSum, t, none);
}

void Group::take_first(Tensor &t) {
  torch::NoGradGuard no_grad;
  std::vector<Tensor> none;
  run(Operation::kFirst, t, none);
}

Tensor Group::all(const Tensor &x) {
  torch::NoGradGuard no_grad;
  Tensor own = x.contiguous();
  std::vector<Tensor> parts;
  for (int64_t r = 0; r < size; r++) parts.push_back(torch::empty_like(own));
  run(Operation::kGather, own, parts);
  return torch::stack(parts);
}

void Group::sum_gradients(const std::vector<Tensor> &params) {
  torch::NoGradGuard no_grad;
  constexpr int64_t kBucket = 8 << 20; // numbers that travel at a time
  std::vector<Tensor> grads, flat;
  int64_t numbers = 0;
  auto send = [&] {
    if (grads.empty()) return;
    Tensor bucket = torch::cat(flat);
    sum(bucket);
    int64_t at = 0;
    for (Tensor &grad : grads) {
      grad.copy_(bucket.narrow(0, at, grad.numel()).view(grad.sizes()));
      at += grad.numel();
    }
    grads.clear(), flat.clear(), numbers = 0;
  };
  for (const Tensor &p : params) {
    if (!p.grad().defined()) continue;
    if (numbers > 0 && (numbers + p.numel() > kBucket || p.scalar_type() != grads.back().scalar_type())) send();
    grads.push_back(p.grad()), flat.push_back(p.grad().reshape(-1)); // by place in the tensor, not in memory
    numbers += p.numel();
  }
  send();
}

namespace {

// Group::batch.
struct Batch : torch::autograd::Function<Batch> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, Group *group) {
    int64_t most = std::max<int64_t>(group->rows(0), 1), rows = group->rows();
    std::vector<int64_t> shape = x.sizes().vec();
    shape[0] = most;
    Tensor own = torch::zeros(shape, x.options());
    own.narrow(0, 0, rows).copy_(x.narrow(0, 0, rows));
    Tensor all = group->all(own).transpose(0, 1).flatten(0, 1); // most * size rows, in the batch's order
    ctx->saved_data["of"] = group->of, ctx->saved_data["rows"] = rows, ctx->saved_data["had"] = x.size(0);
    ctx->saved_data["group"] = reinterpret_cast<int64_t>(group); // which outlives every graph
    return all.narrow(0, 0, group->of).clone();
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto *group = reinterpret_cast<Group *>(ctx->saved_data["group"].toInt());
    int64_t rows = ctx->saved_data["rows"].toInt(), had = ctx->saved_data["had"].toInt();
    Tensor all = grads[0].clone(torch::MemoryFormat::Contiguous);
    group->sum(all);
    std::vector<int64_t> shape = all.sizes().vec();
    shape[0] = had;
    Tensor own = torch::zeros(shape, all.options());
    for (int64_t i = 0; i < rows; i++) own[i].copy_(all[group->rank + i * group->size]);
    return {own, Tensor()};
  }
};

struct NormOfAll : torch::autograd::Function<NormOfAll> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weight, const Tensor &bias, Group *group,
                        torch::nn::BatchNorm2dImpl *norm) {
    Tensor xs = wide(x);
    int64_t C = x.size(1), positions = x.size(2) * x.size(3);
    auto by_channel = [C](const Tensor &t) { return t.view({1, C, 1, 1}); };

    // Means and squared deviations of each process's images (Chan et al., 1979): no sum of squares cancels.
    Tensor own = torch::zeros({2, C}, xs.options());
    if (int64_t rows = group->rows(); rows > 0) {
      Tensor counted = xs.narrow(0, 0, rows);
      own[0] = counted.mean({0, 2, 3});
      own[1] = (counted - by_channel(own[0])).square().sum({0, 2, 3});
    }
    Tensor all = group->all(own), counts = torch::empty({group->size, 1}, torch::kFloat64); // size x 2 x C
    for (int64_t r = 0; r < group->size; r++) counts[r] = group->rows(r) * positions;
    int64_t n = group->of * positions;
    TORCH_CHECK(n > 1, "batch norm needs more than one value per channel, got ", n);
    counts = counts.to(xs.options());
    Tensor means = all.select(1, 0);                                                      // size x C
    Tensor mean = (means * counts).sum(0) / n;                                            // C
    Tensor squares = all.select(1, 1).sum(0) + ((means - mean).square() * counts).sum(0); // C
    Tensor scale = (squares / n + norm->options.eps()).rsqrt();                           // C
    Tensor y = (xs - by_channel(mean)) * by_channel(scale * weight) + by_channel(bias);

    double momentum = norm->options.momentum().value();
    norm->running_mean.lerp_(mean, momentum);
    norm->running_var.lerp_(squares / (n - 1), momentum);
    norm->num_batches_tracked += 1;

    ctx->save_for_backward({x, weight, mean, scale});
    ctx->saved_data["n"] = n, ctx->saved_data["rows"] = group->rows();
    ctx->saved_data["group"] = reinterpret_cast<int64_t>(group); // which outlives every graph
    return y.to(x.scalar_type());
  }

  // With v the normalised value and d the gradient by it: dx = scale * (d - mean of d - v * mean of d*v).
  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    auto *group = reinterpret_cast<Group *>(ctx->saved_data["group"].toInt());
    variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &scale = saved[3];
    int64_t C = x.size(1), rows = ctx->saved_data["rows"].toInt();
    double n = static_cast<double>(ctx->saved_data["n"].toInt());
    auto by_channel = [C](const Tensor &t) { return t.view({1, C, 1, 1}); };
    Tensor dy = wide(grads[0]), v = (wide(x) - by_channel(mean)) * by_channel(scale);
    Tensor own = torch::stack({(dy * v).sum({0, 2, 3}), dy.sum({0, 2, 3})}); // 2 x C: by weight, by bias
    Tensor all = own.clone();
    group->sum(all);
    Tensor dx = (dy - by_channel(all[1] / n) - v * by_channel(all[0] / n)) * by_channel(scale * weight);
    if (rows < x.size(0)) dx.narrow(0, rows, x.size(0) - rows).zero_();
    return {dx.to(x.scalar_type()), own[0], own[1], Tensor(), Tensor()};
  }
};

} // namespace

Tensor Group::batch(const Tensor &x) { return Batch::apply(wide(x), this); }

Tensor batch_norm_of_all(Group &group, const Tensor &x, torch::nn::BatchNorm2dImpl &norm) {
  return NormOfAll::apply(x, norm.weight, norm.bias, &group, &norm);
}

namespace {

constexpr char kNoGloo[] =
    "this libtorch has no gloo, by which processes train one model together; use one process, or "
    "build against a libtorch with gloo and its headers (Debian: libtorch-dev, libgloo-dev)";

} // namespace

#ifdef RDPP_C10D

namespace {

constexpr std::chrono::hours kForever(24 * 365); // c10d's own limits: who is gone is told by Group::end

// Process groups that something may still be under way in: their ends would wait for it.
void leave(std::shared_ptr<void> group) {
  static std::mutex mutex;
  static auto *left = new std::vector<std::shared_ptr<void>>;
  std::lock_guard<std::mutex> lock(mutex);
  left->push_back(std::move(group));
}

// Ends what is under way of a process group whose c10d has that.
template <class P> auto abort(P &group, int) -> decltype(group.abort(), void()) { group.abort(); }
template <class P> void abort(P &, long) {}

class C10d : public Group {
public:
  C10d(const Meeting &m, torch::Device device) : Group(m.rank, m.size), device_(device) {
#ifndef RDPP_GLOO
    if (!device.is_cuda()) throw Error(RDPP_UNSUPPORTED, kNoGloo);
#endif
    c10d::TCPStoreOptions options;
    options.port = m.port;
    options.isServer = m.server;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(m.patience);
    auto store = c10::make_intrusive<c10d::PrefixStore>(m.name, c10::make_intrusive<c10d::TCPStore>(m.host, options));
    await(m, *store);

#ifdef RDPP_GLOO
    using Gloo = c10d::ProcessGroupGloo;
    auto gloo = Gloo::Options::create();
    gloo->timeout = kForever;
    bool here = m.host == "localhost" || m.host.rfind("127.", 0) == 0;
    gloo->devices.push_back(!m.network.empty() ? Gloo::createDeviceForInterface(m.network)
                            : here             ? Gloo::createDeviceForHostname("127.0.0.1")
                                               : Gloo::createDefaultDevice());
    gloo_ = std::make_shared<Over<Gloo>>(*this, store, gloo);
#endif
#ifdef RDPP_NCCL
    if (device.is_cuda()) {
      auto nccl = c10d::ProcessGroupNCCL::Options::create();
      nccl->timeout = kForever;
      nccl_ = std::make_shared<Over<c10d::ProcessGroupNCCL>>(
          *this, c10::make_intrusive<c10d::PrefixStore>("nccl", store), nccl);
    }
#endif
  }

  ~C10d() override {
    if (ended().empty()) return;
    leave(gloo_);
    leave(nccl_);
  }

private:
  struct Way {
    virtual ~Way() = default;
    virtual void run(Operation operation, Tensor &t, std::vector<Tensor> &parts) = 0;
    virtual void wake() = 0;
  };

  template <class P> struct Over : Way {
    template <class S, class O> Over(C10d &of, const S &store, const O &options) : of(of) {
      group = c10::make_intrusive<P>(store, static_cast<int>(of.rank), static_cast<int>(of.size), options);
    }

    void run(Operation operation, Tensor &t, std::vector<Tensor> &parts) override {
      std::vector<Tensor> in = {t};
      switch (operation) {
      case Operation::kSum:
        return of.finish(group->allreduce(in));
      case Operation::kFirst:
        return of.finish(group->broadcast(in));
      case Operation::kGather:
        std::vector<std::vector<Tensor>> out = {parts};
        return of.finish(group->allgather(out, in));
      }
    }

    void wake() override { abort(*group, 0); }

    C10d &of;
    c10::intrusive_ptr<P> group;
  };

  void wake() override {
    if (nccl_) nccl_->wake(); // gloo is waited for in pieces
  }

  // All processes say that they are there.
  static void await(const Meeting &m, c10d::Store &store) {
    auto key = [](int64_t r) { return "here " + std::to_string(r); };
    std::vector<std::string> keys;
    for (int64_t r = 0; r < m.size; r++) keys.push_back(key(r));
    store.set(key(m.rank), std::vector<uint8_t>{1});
    try {
      store.wait(keys, std::chrono::milliseconds(m.patience));
    } catch (const std::exception &e) {
      std::string missing;
      for (int64_t r = 0; r < m.size; r++) {
        if (!store.check({key(r)})) missing += (missing.empty() ? "" : ", ") + std::to_string(r);
      }
      if (missing.empty()) throw;
      throw Error(RDPP_PEER_LOST, "rank " + missing + " of " + std::to_string(m.size) + " has not come within " +
                                      std::to_string(m.patience / 1000) + " s");
    }
  }

  // Waits for an operation, in pieces, as nothing can take it back.
  template <class W> void finish(const W &work) {
    constexpr std::chrono::milliseconds piece(200);
    for (;;) {
      try {
        work->wait(piece);
        return;
      } catch (const std::exception &e) {
        check();
        if (!work->isCompleted()) continue;
        if (work->isSuccess()) return; // just now
        std::string why = e.what();
        throw Error(RDPP_PEER_LOST, "the connection to another process is lost: " + why.substr(0, why.find('\n')));
      }
    }
  }

  void run(Operation operation, Tensor &t, std::vector<Tensor> &parts) override {
    check();
    if (const auto &way = t.is_cpu() ? gloo_ : nccl_) return way->run(operation, t, parts);
    // The other one carries it.
    Tensor there = t.to(gloo_ ? torch::kCPU : device_);
    std::vector<Tensor> all;
    for (size_t i = 0; i < parts.size(); i++) all.push_back(torch::empty_like(there));
    (gloo_ ? gloo_ : nccl_)->run(operation, there, all);
    if (operation != Operation::kGather) t.copy_(there);
    for (size_t i = 0; i < parts.size(); i++) parts[i].copy_(all[i]);
  }

  const torch::Device device_;
  std::shared_ptr<Way> gloo_, nccl_;
};

} // namespace

std::shared_ptr<Group> Group::meet(const Meeting &meeting, torch::Device device) {
  try {
    return std::make_shared<C10d>(meeting, device);
  } catch (const Error &) {
    throw;
  } catch (const std::exception &e) {
    std::string why = e.what();
    throw Error(RDPP_PEER_LOST, "rank " + std::to_string(meeting.rank) + " cannot meet the others at " + meeting.host +
                                    ":" + std::to_string(meeting.port) + ": " + why.substr(0, why.find('\n')));
  }
}

#else

std::shared_ptr<Group> Group::meet(const Meeting &, torch::Device) { throw Error(RDPP_UNSUPPORTED, kNoGloo); }

#endif

} // namespace rdpp

using namespace rdpp;

namespace {

Group &of(const rdpp_group *g) {
  if (!g) throw std::invalid_argument("a group is NULL or closed");
  return *g->group;
}

} // namespace

rdpp_error rdpp_group_new(const rdpp_meeting *meeting, int32_t device, rdpp_group **out) {
  return asked([&] {
    const rdpp_meeting &m = *meeting;
    if (m.size < 1 || m.rank < 0 || m.rank >= m.size || m.port < 1 || m.port > 65535)
      throw std::invalid_argument("rank " + std::to_string(m.rank) + " of " + std::to_string(m.size) + " at port " +
                                  std::to_string(m.port) + " cannot be");
    Meeting own;
    own.host = m.host, own.name = m.name, own.network = m.network;
    own.port = static_cast<uint16_t>(m.port);
    own.server = m.server != 0;
    own.rank = m.rank, own.size = m.size, own.patience = m.patience_ms;
    *out = new rdpp_group{Group::meet(own, at_device(device))};
  });
}

void rdpp_group_free(rdpp_group *g) { delete g; }

rdpp_error rdpp_group_end(rdpp_group *g, const char *why) {
  return asked([&] { of(g).end(why); });
}

rdpp_error rdpp_group_deal(rdpp_group *g, int64_t B) {
  return asked([&] {
    if (B < 1) throw std::invalid_argument("a batch of " + std::to_string(B) + " images");
    of(g).of = B;
  });
}

rdpp_error rdpp_group_sum(rdpp_group *g, rdpp_tensor t) {
  return guarded([&] {
    Tensor target = at_tensor(t);
    of(g).sum(target);
  });
}

rdpp_error rdpp_group_take_first(rdpp_group *g, rdpp_tensor t) {
  return guarded([&] {
    Tensor target = at_tensor(t);
    if (target.is_contiguous()) return of(g).take_first(target);
    torch::NoGradGuard no_grad;
    Tensor flat = target.contiguous();
    of(g).take_first(flat);
    target.copy_(flat);
  });
}

rdpp_error rdpp_group_batch(rdpp_group *g, const rdpp_tensor x[RDPP_SCALES], rdpp_tensor all[RDPP_SCALES]) {
  return guarded([&] {
    Made made;
    for (int k = 0; k < kScales; k++) {
      if (x[k]) made[k] = std::make_unique<Tensor>(of(g).batch(at_tensor(x[k])));
    }
    give(std::move(made), all);
  });
}

rdpp_error rdpp_group_share(rdpp_group *g, rdpp_module *m) {
  return guarded([&] {
    std::shared_ptr<Group> group = g ? g->group : nullptr;
    opened(m).net->apply([&](torch::nn::Module &child) {
      if (auto *conv = child.as<ConvImpl>()) conv->group = group;
    });
  });
}
