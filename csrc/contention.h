// How OpenMP's threads wait for each other where other programs want the same processors.
#pragma once

namespace rdpp {

// Lives as long as a call that computes, and looks, a few times a second, whether this thread and those that compute
// with it have to queue for processors meanwhile. It has libgomp's threads sleep instead of spin as long as they do:
// what a thread waits for may be queueing behind it. Where each has a processor of its own spinning is quicker. Between
// calls the program's other threads take processors from those that still spin, which says nothing. Where libtorch can
// use a GPU threads always spin, as what waits for a GPU should not also look after processors. OMP_WAIT_POLICY and
// GOMP_SPINCOUNT in the environment leave the choice to whoever set them; without /proc threads always spin.
class Watch {
public:
  Watch();
  ~Watch();
  Watch(const Watch &) = delete;
  Watch &operator=(const Watch &) = delete;

private:
  bool on_ = false;
};

// Whether they have to queue, as far as is known.
bool contended();

} // namespace rdpp
