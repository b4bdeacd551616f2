#include "script.h"

#include <torch/script.h>

#include <cerrno>
#include <ostream>
#include <stdexcept>
#include <streambuf>
#include <system_error>
#include <unistd.h>

namespace rdpp {

namespace {

// Unbuffered: TorchScript's archive arrives in large pieces. After an error it drops what comes and keeps the error:
// told that writing failed, libtorch ends the process, by an exception from a destructor.
class DescriptorBuffer : public std::streambuf {
public:
  explicit DescriptorBuffer(int fd) : fd(fd) {}
  int error = 0; // errno

protected:
  std::streamsize xsputn(const char *data, std::streamsize n) override {
    for (std::streamsize done = 0; done < n && error == 0;) {
      ssize_t written = ::write(fd, data + done, static_cast<size_t>(n - done));
      if (written >= 0) {
        done += written;
      } else if (errno != EINTR) {
        error = errno;
      }
    }
    return n;
  }

  int_type overflow(int_type c) override {
    char byte = traits_type::to_char_type(c);
    xsputn(&byte, 1);
    return traits_type::not_eof(c);
  }

private:
  int fd;
};

} // namespace

void save_script(const std::string &source, const std::vector<std::pair<std::string, torch::Tensor>> &tensors,
                 const std::vector<std::pair<std::string, std::string>> &extra, int fd) {
  torch::jit::Module module("rdpp");
  // Python's Module.eval() and torch.jit.freeze look for it.
  module.register_attribute("training", c10::BoolType::get(), false);
  for (auto &[name, tensor] : tensors) {
    module.register_parameter(name, tensor.detach(), /*is_buffer=*/!tensor.is_floating_point());
  }
  try {
    module.define(source);
  } catch (const torch::jit::ErrorReport &e) { // of the compiler
    throw std::invalid_argument(e.what());
  } catch (const std::runtime_error &e) { // of the parser
    throw std::invalid_argument(e.what());
  }
  torch::jit::ExtraFilesMap files;
  for (auto &[name, content] : extra) files[name] = content;
  DescriptorBuffer buffer(fd);
  std::ostream out(&buffer);
  module.save(out, files);
  if (buffer.error != 0) throw std::system_error(buffer.error, std::generic_category(), "writing");
}

} // namespace rdpp
