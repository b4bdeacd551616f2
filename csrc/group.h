// The processes that train one model: what they tell each other in a step, over libtorch's c10d.
//
// A batch of `of` images is dealt out in turn: process r has its images r, r + size, r + 2 size, ... A process that
// gets none has one that does not count, so that all processes run the same operations in the same order.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace rdpp {

// How the processes find each other.
struct Meeting {
  std::string host; // where the store is that they meet at
  uint16_t port = 0;
  bool server = false; // this process has the store
  std::string name;    // before the store's keys
  std::string network; // the interface to talk over; empty: the one that the host's name leads to
  int64_t rank = 0, size = 1;
  int64_t patience = 0; // for all to come, milliseconds
};

class Group {
public:
  // Waits until all processes are there. device: that of the tensors.
  static std::shared_ptr<Group> meet(const Meeting &meeting, torch::Device device);
  virtual ~Group() = default;

  const int64_t rank, size;
  int64_t of = 0; // images of the batch at hand, of all processes

  // Images of the batch that process r has.
  int64_t rows(int64_t r) const { return (of - r + size - 1) / size; }
  int64_t rows() const { return rows(rank); }

  // t becomes the sum over processes, or process 0's. Outside autograd.
  void sum(torch::Tensor &t);
  void take_first(torch::Tensor &t);
  // x, of one shape everywhere -> size x ...: everybody's. Outside autograd.
  torch::Tensor all(const torch::Tensor &x);

  // The gradients of params become their sums over processes.
  void sum_gradients(const std::vector<torch::Tensor> &params);

  // x: this process's rows of a batch, and one that does not count where it has none -> of rows, the batch in its
  // order. The gradient is the sum over processes.
  torch::Tensor batch(const torch::Tensor &x);

  // Makes everything that waits for another process, and will, fail with this text. From any thread.
  void end(const std::string &why);

protected:
  Group(int64_t rank, int64_t size) : rank(rank), size(size) {}

  enum class Operation { kSum, kFirst, kGather };
  // t in place, but for kGather, which fills `parts`.
  virtual void run(Operation operation, torch::Tensor &t, std::vector<torch::Tensor> &parts) = 0;

  // Ends what only this can.
  virtual void wake() {}

  void check();        // throws where it has ended
  std::string ended(); // why; empty: it has not

private:
  std::mutex mutex_;
  std::string why_;
};

// Batch norm of x, B x C x H x W, with the statistics of all processes' images; the running ones follow. The last rows
// of x may not count, see Group.
torch::Tensor batch_norm_of_all(Group &group, const torch::Tensor &x, torch::nn::BatchNorm2dImpl &norm);

} // namespace rdpp

struct rdpp_group {
  std::shared_ptr<rdpp::Group> group;
};
