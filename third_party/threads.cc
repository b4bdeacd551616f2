// gotorch's init asks libtorch for half as many threads as there are processors: on a machine with one, for none, which
// would end the process. This stands in for its function.
#include <torch/torch.h>

extern "C" void SetNumThreads(int32_t n) { torch::set_num_threads(n < 1 ? 1 : n); }
