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
  std::vector<Tensor> patches; // N' x D each
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
    if (n < 1) throw std::invalid_argument("a coreset of no patches");
    std::vector<Tensor> all, points;
    for (int64_t i = 0; i < n; i++) {
      all.push_back(at_tensor(patches[i]).flatten(0, -2));
      points.push_back(signs ? project(all.back(), at_tensor(signs)) : all.back().to(torch::kFloat32));
    }
    Tensor joined = torch::cat(points);
    points.clear();
    *out = new rdpp_coreset{all, Coreset(joined, {start, start + n_start})};
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
    *patches = handle(rows_of(found.patches, found.search.chosen()));
  });
}

rdpp_error rdpp_bank_new(int64_t count, int64_t D, int32_t dtype, int32_t device, rdpp_module **out) {
  return guarded(
      [&] { *out = finish(RDPP_BANK, std::make_shared<BankImpl>(count, D), dtype, device, 0, RDPP_BLANK).release(); });
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
