// Runs a TorchScript file by libtorch alone, a test: MODEL INPUT OUTPUT uint8|float32 DIMENSION... reads a tensor's
// bytes from INPUT and writes those of the results, as float32, one after the other, to OUTPUT.
#include <torch/script.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

int main(int argc, char **argv) try {
  if (argc < 6) {
    std::fprintf(stderr, "usage: run_script MODEL INPUT OUTPUT uint8|float32 DIMENSION...\n");
    return 2;
  }
  torch::jit::Module module = torch::jit::load(argv[1]);
  std::ifstream in(argv[2], std::ios::binary);
  std::vector<char> bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  auto dtype = std::string(argv[4]) == "uint8" ? torch::kUInt8 : torch::kFloat32;
  std::vector<int64_t> shape;
  for (int i = 5; i < argc; i++) shape.push_back(std::stoll(argv[i]));
  torch::Tensor x = torch::empty(shape, dtype);
  if (static_cast<size_t>(x.nbytes()) != bytes.size()) throw std::invalid_argument("INPUT does not have that shape");
  std::copy(bytes.begin(), bytes.end(), static_cast<char *>(x.data_ptr()));
  torch::NoGradGuard no_grad;
  std::ofstream out(argv[3], std::ios::binary);
  auto results = module.forward({x}).toTuple();
  for (const c10::IValue &result : results->elements()) {
    torch::Tensor y = result.toTensor().to(torch::kFloat32).contiguous();
    out.write(static_cast<const char *>(y.data_ptr()), static_cast<std::streamsize>(y.nbytes()));
  }
  return out.flush() ? 0 : 1;
} catch (const std::exception &e) {
  std::fprintf(stderr, "run_script: %s\n", e.what());
  return 1;
}
