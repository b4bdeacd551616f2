// librdpp.so for C++17: detectors and results that free themselves, errors as exceptions. See rdpp.h.
#ifndef RDPP_DETECTOR_HPP
#define RDPP_DETECTOR_HPP

#include "rdpp.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace rdpp {

// A call that failed; status is one of RDPP_ERROR_*.
class Error : public std::runtime_error {
public:
  Error(int32_t status, const std::string &message) : std::runtime_error(message), status(status) {}
  const int32_t status;
};

// What is known about an image; -> reads the fields of rdpp_result.
class Result {
public:
  Result() { raw_.size = sizeof raw_; }
  Result(Result &&other) noexcept : Result() { std::swap(raw_, other.raw_); }
  Result &operator=(Result &&other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~Result() { rdpp_result_free(&raw_); }

  const rdpp_result *operator->() const { return &raw_; }
  const rdpp_region *begin() const { return raw_.regions; }
  const rdpp_region *end() const { return raw_.regions + raw_.region_count; }

private:
  friend class Detector;
  rdpp_result raw_{};
};

// An open model, for any number of threads.
class Detector {
public:
  static rdpp_options defaults() {
    rdpp_options options{};
    options.size = sizeof options;
    return options;
  }

  explicit Detector(const std::string &model_file, const rdpp_options &options = defaults()) {
    call([&](char **message) { return rdpp_open(model_file.c_str(), &options, &handle_, message); });
  }
  Detector(Detector &&other) noexcept : handle_(std::exchange(other.handle_, 0)) {}
  Detector &operator=(Detector &&other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Detector() { rdpp_close(handle_); }

  Result pixels(const uint8_t *pixels, int32_t width, int32_t height, int64_t stride, int32_t order) const {
    Result r;
    call([&](char **message) {
      return rdpp_detect_pixels(handle_, pixels, width, height, stride, order, &r.raw_, message);
    });
    return r;
  }
  Result encoded(const void *data, size_t size) const {
    Result r;
    call([&](char **message) { return rdpp_detect_encoded(handle_, data, size, &r.raw_, message); });
    return r;
  }

  // The same of images of which nothing is scored where a mask is not 0.
  static rdpp_mask mask(const uint8_t *pixels, int32_t width, int32_t height, int64_t stride = 0) {
    return {sizeof(rdpp_mask), width, height, 0, stride, pixels};
  }
  Result pixels(const uint8_t *pixels, int32_t width, int32_t height, int64_t stride, int32_t order,
                const rdpp_mask &ignore) const {
    Result r;
    call([&](char **message) {
      return rdpp_detect_pixels_ignoring(handle_, pixels, width, height, stride, order, &ignore, &r.raw_, message);
    });
    return r;
  }
  Result encoded(const void *data, size_t size, const rdpp_mask &ignore) const {
    Result r;
    call([&](char **message) { return rdpp_detect_encoded_ignoring(handle_, data, size, &ignore, &r.raw_, message); });
    return r;
  }

private:
  template <class F> static void call(F &&f) {
    char *message = nullptr;
    if (int32_t status = f(&message); status != RDPP_OK) {
      std::string reason = message ? message : "no reason given";
      rdpp_message_free(message);
      throw Error(status, reason);
    }
  }

  rdpp_detector handle_ = 0;
};

} // namespace rdpp
#endif
