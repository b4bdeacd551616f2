// The boundary's tensors.
#include "boundary.h"

#include <string>

using namespace rdpp;
using torch::Tensor;

rdpp_error rdpp_tensor_new(int32_t dtype, const void *data, const int64_t *shape, int64_t dims, rdpp_tensor *out) {
  return guarded([&] {
    torch::IntArrayRef sizes(shape, static_cast<size_t>(dims));
    *out = handle(torch::from_blob(const_cast<void *>(data), sizes, at_dtype(dtype)).clone());
  });
}

void rdpp_tensor_free(rdpp_tensor t) { delete static_cast<Tensor *>(t); }

rdpp_error rdpp_tensor_to(rdpp_tensor t, int32_t device, int32_t dtype, rdpp_tensor *out) {
  return guarded([&] { *out = handle(at_tensor(t).to(at_device(device), at_dtype(dtype))); });
}

rdpp_error rdpp_tensor_read(rdpp_tensor t, int32_t dtype, void *dst, int64_t n) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    const Tensor &source = at_tensor(t);
    if (source.numel() != n) {
      throw std::invalid_argument("the tensor holds " + std::to_string(source.numel()) + " elements, not " +
                                  std::to_string(n));
    }
    if (n > 0) torch::from_blob(dst, source.sizes(), at_dtype(dtype)).copy_(source);
  });
}

rdpp_error rdpp_tensor_write(rdpp_tensor t, int32_t dtype, const void *src, int64_t n) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    const Tensor &target = at_tensor(t);
    if (target.numel() != n) {
      throw std::invalid_argument("the tensor holds " + std::to_string(target.numel()) + " elements, not " +
                                  std::to_string(n));
    }
    if (n > 0) target.copy_(torch::from_blob(const_cast<void *>(src), target.sizes(), at_dtype(dtype)));
  });
}

rdpp_error rdpp_tensor_require_grad(rdpp_tensor t) {
  return guarded([&] { at_tensor(t).requires_grad_(); });
}

rdpp_error rdpp_tensor_grad(rdpp_tensor t, rdpp_tensor *out) {
  return guarded([&] {
    const Tensor &grad = at_tensor(t).grad();
    *out = grad.defined() ? handle(grad) : nullptr;
  });
}

rdpp_error rdpp_tensor_set_grad(rdpp_tensor t, rdpp_tensor grad) {
  return guarded([&] {
    const Tensor &target = at_tensor(t);
    Tensor copy;
    if (grad) copy = at_tensor(grad).to(target.options().requires_grad(false), false, /*copy=*/true);
    target.mutable_grad() = copy;
  });
}

rdpp_error rdpp_split(const rdpp_tensor x[RDPP_SCALES], int64_t B, rdpp_tensor head[RDPP_SCALES],
                      rdpp_tensor tail[RDPP_SCALES]) {
  return guarded([&] {
    Features all = features(x), first, rest;
    for (int k = 0; k < kScales; k++) {
      first[k] = all[k].narrow(0, 0, B);
      rest[k] = all[k].narrow(0, B, all[k].size(0) - B);
    }
    Made heads = make(first), tails = make(rest);
    give(std::move(heads), head);
    give(std::move(tails), tail);
  });
}

rdpp_error rdpp_join(const rdpp_tensor head[RDPP_SCALES], const rdpp_tensor tail[RDPP_SCALES],
                     rdpp_tensor x[RDPP_SCALES]) {
  return guarded([&] {
    Features first = features(head), rest = features(tail), all;
    for (int k = 0; k < kScales; k++) all[k] = torch::cat({first[k], rest[k]});
    give(all, x);
  });
}

rdpp_error rdpp_images(const uint8_t *pixels, int64_t B, int64_t S, const float mean[3], const float std[3],
                       int32_t device, int32_t dtype, rdpp_tensor *x) {
  return guarded([&] {
    torch::NoGradGuard no_grad;
    torch::Device to = at_device(device);
    Tensor bytes = torch::from_blob(const_cast<uint8_t *>(pixels), {B, S, S, 3}, torch::kUInt8).to(to);
    auto type = at_dtype(dtype) == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    auto channels = [&](const float v[3]) { return torch::tensor({v[0], v[1], v[2]}).to(to, type); };
    Tensor y = bytes.to(type).div_(255).sub_(channels(mean)).div_(channels(std)); // B x S x S x 3
    *x = handle(y.to(at_dtype(dtype)).permute({0, 3, 1, 2}));
  });
}
