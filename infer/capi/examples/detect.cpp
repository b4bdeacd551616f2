// Scores images with a model, in C++17, one thread per image:
//
//   c++ -std=c++17 -pthread -I include detect.cpp -L lib -lrdpp -Wl,-rpath,lib -o detect
//   ./detect model.safetensors image.png ...
//
// Prints "score normalised anomalous regions width height file" per image.
#include <rdpp.hpp>

#include <cstdio>
#include <exception>
#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <vector>

static rdpp::Result detect(const rdpp::Detector &detector, const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot be read");
  std::vector<char> data{std::istreambuf_iterator<char>(file), {}};
  return detector.encoded(data.data(), data.size());
}

int main(int argc, char **argv) try {
  if (argc < 3) {
    std::fprintf(stderr, "usage: detect MODEL IMAGE...\n");
    return 2;
  }
  rdpp::Detector detector(argv[1]);
  std::vector<std::future<rdpp::Result>> results;
  for (int i = 2; i < argc; i++)
    results.push_back(std::async(std::launch::async, [&detector, path = argv[i]] { return detect(detector, path); }));
  int failed = 0;
  for (int i = 2; i < argc; i++) {
    try {
      rdpp::Result r = results[i - 2].get();
      std::printf("%.17g %.17g %d %lld %d %d %s\n", r->score, r->normalised, r->anomalous,
                  static_cast<long long>(r.end() - r.begin()), r->width, r->height, argv[i]);
    } catch (const std::exception &e) {
      std::fprintf(stderr, "detect: %s: %s\n", argv[i], e.what());
      failed = 1;
    }
  }
  return failed;
} catch (const std::exception &e) {
  std::fprintf(stderr, "detect: %s\n", e.what());
  return 1;
}
