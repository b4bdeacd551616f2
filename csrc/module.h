// The boundary's networks.
#pragma once

#include "boundary.h"

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct rdpp_module {
  int32_t kind;
  bool trainable;
  bool released = false; // its state is gone
  std::shared_ptr<torch::nn::Module> net;
  struct Entry {
    std::string name;
    torch::Tensor tensor;
    bool trainable;
  };
  std::vector<Entry> state;
  std::shared_ptr<uint64_t> version; // another number, of all in the process, whenever the network may have changed
};

namespace rdpp {

// Makes a fresh network a module, as rdpp_module_new says.
std::unique_ptr<rdpp_module> finish(int32_t kind, std::shared_ptr<torch::nn::Module> net, int32_t dtype, int32_t device,
                                    uint64_t seed, int32_t flags);

// Whether m records gradients where the caller asks for them: it cannot where its weights are gone.
bool records(const rdpp_module *m);

// Throws unless m is a module of that kind.
void need(const rdpp_module *m, int32_t kind);

template <class Impl> Impl &network(const rdpp_module *m, int32_t kind) {
  need(m, kind);
  return static_cast<Impl &>(*m->net);
}

template <class Impl> std::shared_ptr<Impl> shared(const rdpp_module *m, int32_t kind) {
  need(m, kind);
  return std::static_pointer_cast<Impl>(m->net);
}

} // namespace rdpp
