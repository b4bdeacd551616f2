// How OpenMP's threads wait for each other where other programs want the same processors.
#pragma once

namespace rdpp {

// Looks, a few times a second, whether this thread and those that compute with it have to queue for processors, and has
// libgomp's threads sleep instead of spin as long as they do: what a thread waits for may be queueing behind it. Where
// each has a processor of its own spinning is quicker. Where libtorch can use a GPU threads always spin, as what waits
// for a GPU should not also look after processors. To be called before something is computed. OMP_WAIT_POLICY and
// GOMP_SPINCOUNT in the environment leave the choice to whoever set them; without /proc threads always spin.
void mind_contention();

// Whether they have to queue, as far as is known.
bool contended();

} // namespace rdpp
