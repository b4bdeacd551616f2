// TorchScript files, which libtorch runs without rdpp.
#pragma once

#include <torch/torch.h>

#include <string>
#include <utility>
#include <vector>

namespace rdpp {

// Compiles `source`, the text of a module's methods, with the tensors as its parameters (of floating-point elements)
// and buffers (of others), and writes the module to the open file descriptor `fd`, front to back. `extra`: names and
// contents of further entries of the file.
void save_script(const std::string &source, const std::vector<std::pair<std::string, torch::Tensor>> &tensors,
                 const std::vector<std::pair<std::string, std::string>> &extra, int fd);

} // namespace rdpp
