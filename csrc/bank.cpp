// The C boundary's PatchCore.
#include "bank.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "coreset.h"
#include "patchcore.h"

using namespace rdpp;
using torch::Tensor;

struct rdpp_coreset {
  std::vector<Tensor> patches; // N' x D each; none where the points are the patches
  Tensor points;               // N x K, that are searched
  torch::ScalarType type;      // of patches
  Coreset search;
};

namespace {

template <class T> T &searching(T *c) {
  if (!c) throw std::invalid_argument("a coreset is NULL or closed");
  return *c;
}

} // namespace

rdpp_error rdpp_patches(const rdpp_tensor f[RDPP_SCALES], int64_t dimensions, rdpp_tensor *patches) {
  return guarded([&] { *patches = handle(rdpp::patches(features(f), dimensions)); });
}

rdpp_error rdpp_coreset_new(const rdpp_tensor *patches, int64_t n, rdpp_tensor signs, const int64_t *start,
                            int64_t n_start, rdpp_coreset **out) {
  return guarded([&] {
    if (n < 1 || !patches) throw std::invalid_argument("a coreset of no patches");
    if (n_start < 1 || !start) throw std::invalid_argument("a coreset without a starting point");
    std::vector<Tensor> all;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
      const Tensor &t = at_tensor(patches[i]);
      TORCH_CHECK(t.dim() >= 2 && t.is_floating_point(), "patches must be rows of numbers, got ", t.scalar_type(), " ",
                  t.sizes());
      all.push_back(t.flatten(0, -2));
      TORCH_CHECK(all[i].size(1) == all[0].size(1) && all[i].options().type_equal(all[0].options()), "patches ", i,
                  " are ", t.scalar_type(), " ", t.sizes(), ", unlike the first, ", all[0].scalar_type(), " ",
                  all[0].sizes());
      count += all[i].size(0);
    }
    const Tensor *by = signs ? &at_tensor(signs) : nullptr;
    if (by) TORCH_CHECK(by->dim() == 2, "a projection must be D x K, got ", by->sizes());
    torch::NoGradGuard no_grad;
    torch::ScalarType type = all[0].scalar_type();
    // Each tensor's points are made in their place: all of them twice may be more than there is memory for.
    Tensor points = torch::empty({count, by ? by->size(1) : all[0].size(1)}, all[0].options().dtype(torch::kFloat32));
    int64_t first = 0;
    for (const Tensor &t : all) {
      Tensor place = points.narrow(0, first, t.size(0));
      if (by) {
        project(t, *by, place);
      } else {
        place.copy_(t);
      }
      first += t.size(0);
    }
    // Float32 holds every number of the narrower types, so that the points give the patches back.
    bool same = !by && type != torch::kFloat64;
    if (same) all.clear();
    *out = new rdpp_coreset{all, points, type, Coreset(points, {start, start + n_start})};
  });
}

void rdpp_coreset_free(rdpp_coreset *c) { delete c; }

rdpp_error rdpp_coreset_grow(rdpp_coreset *c, int64_t n, int64_t *size) {
  return guarded([&] {
    searching(c).search.grow(n);
    *size = static_cast<int64_t>(c->search.chosen().size());
  });
}

rdpp_error rdpp_coreset_chosen(const rdpp_coreset *c, int64_t size, int64_t *numbers) {
  return guarded([&] {
    std::vector<int64_t> chosen = searching(c).search.chosen();
    if (size != static_cast<int64_t>(chosen.size())) {
      throw std::invalid_argument("the coreset has " + std::to_string(chosen.size()) + " patches, not " +
                                  std::to_string(size));
    }
    std::copy(chosen.begin(), chosen.end(), numbers);
  });
}

rdpp_error rdpp_coreset_patches(const rdpp_coreset *c, rdpp_tensor *patches) {
  return guarded([&] {
    const rdpp_coreset &found = searching(c);
    std::vector<int64_t> chosen = found.search.chosen();
    *patches =
        handle(found.patches.empty() ? rows_of({found.points}, chosen).to(found.type) : rows_of(found.patches, chosen));
  });
}

rdpp_error rdpp_bank_new(int64_t count, int64_t D, int32_t dtype, int32_t device, rdpp_module **out) {
  return guarded([&] {
    if (dtype != RDPP_FLOAT32 && dtype != RDPP_FLOAT64) {
      throw std::invalid_argument("a bank of element type " + std::to_string(dtype) + "; use float32 or float64");
    }
    *out = finish(RDPP_BANK, std::make_shared<BankImpl>(count, D), dtype, device, 0, RDPP_BLANK).release();
  });
}

namespace rdpp {

Predictor::Method patch_distances(const std::vector<const rdpp_module *> &modules, const rdpp_bank_options &o) {
  if (modules.size() != 2) {
    throw std::invalid_argument("a teacher and a bank are needed, got " + std::to_string(modules.size()) + " networks");
  }
  auto teacher = shared<TeacherImpl>(modules[0], RDPP_TEACHER);
  auto bank = shared<BankImpl>(modules[1], RDPP_BANK);
  BankOptions options = {o.sigma, o.dimensions, o.of_map != 0, o.neighbours, o.bytes};
  return [=](const Tensor &x) { return predict_patches(*teacher, *bank, x, options); };
}

} // namespace rdpp
