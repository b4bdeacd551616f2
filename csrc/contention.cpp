#include "contention.h"

#include <fcntl.h>
#include <omp.h>
#include <pthread.h>
#include <torch/cuda.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

namespace rdpp {

namespace {

constexpr char kCrowdName[] = "rdpp-crowd"; // of the threads below, as ps and top tell it

// What a thread has spent on a processor and in a queue for one, nanoseconds.
struct Spent {
  long long running = 0, queueing = 0;
};

using Clock = std::chrono::steady_clock;

// What this thread has spent since the last call; nothing where the kernel does not tell.
Spent spent_since() {
  thread_local Spent last;
  int file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  char text[96];
  ssize_t n = read(file, text, sizeof text - 1);
  close(file);
  if (n <= 0) return {};
  text[n] = 0;
  Spent now;
  if (sscanf(text, "%lld %lld", &now.running, &now.queueing) != 2) return {};
  Spent since = {now.running - last.running, now.queueing - last.queueing};
  last = now;
  return since;
}

// What this thread and those that compute with it have spent since the last call, and how many they are.
Spent team_spent_since(int &size) {
  long long running = 0, queueing = 0;
  int n = 0;
#pragma omp parallel reduction(+ : running, queueing, n)
  {
    Spent mine = spent_since();
    running += mine.running, queueing += mine.queueing, n++;
  }
  size = n;
  return {running, queueing};
}

// Whether so many threads can be started. libgomp ends the process where it cannot.
bool can_start(int n) {
  std::vector<std::thread> threads;
  std::promise<void> tried;
  std::shared_future<void> over = tried.get_future().share();
  threads.reserve(n);
  bool could = true;
  try {
    while (n-- > 0) threads.emplace_back([over] { over.wait(); });
  } catch (const std::exception &) {
    could = false;
  }
  tried.set_value();
  for (auto &t : threads) t.join();
  return could;
}

std::atomic<bool> queueing{false};
std::atomic<Clock::rep> last_look{0};

// A team of threads that sleep. While it is there libgomp has more threads than there are processors, and then all of
// its threads spin a hundred times where they would spin 300,000 times.
class Crowd {
public:
  // want has it come or go, in its own time. team is how many threads libgomp has for the caller.
  void want(bool yes, int team) {
    std::lock_guard<std::mutex> lock(mutex_);
    wanted_ = yes;
    if (!yes) {
      over_.notify_all();
    } else if (!there_) {
      try {
        std::thread([this, team] { stay(team); }).detach();
        there_ = true;
      } catch (const std::exception &) { // threads go on spinning
      }
    }
  }

private:
  static constexpr auto idle = std::chrono::seconds(5); // without a look, after which nobody computes any more

  void stay(int team) {
    pthread_setname_np(pthread_self(), kCrowdName);
    gather(team);
    std::unique_lock<std::mutex> lock(mutex_);
    while (wanted_) {
      over_.wait_for(lock, idle);
      if (Clock::now().time_since_epoch().count() - last_look > Clock::duration(idle).count())
        wanted_ = queueing = false;
    }
    there_ = false; // and with this thread its team ends
  }

  // libgomp counts the threads of all teams, and those of the caller's are there already.
  void gather(int team) {
    constexpr int spare = 4; // which somebody else may start meanwhile
    int n = std::max(2, omp_get_num_procs() - team + 2);
    try {
      if (!can_start(n + spare)) return;
    } catch (const std::exception &) {
      return;
    }
    omp_set_dynamic(0);
    std::atomic<int> came{0};
#pragma omp parallel num_threads(n)
    came++;
  }

  std::mutex mutex_;
  std::condition_variable over_;
  bool wanted_ = false, there_ = false;
};

bool chosen_by_user() {
  for (const char *name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}) {
    const char *value = getenv(name);
    if (value && *value) return true;
  }
  return false;
}

} // namespace

bool contended() { return queueing; }

namespace {

constexpr auto kPause = std::chrono::milliseconds(100), kLeastStay = std::chrono::milliseconds(1000);
constexpr double kContendedFrom = 0.1, kQuietBelow = 0.03; // of the time in which threads wanted to run
constexpr long long kEnough = 300'000'000; // nanoseconds of it, to tell by: another program that comes and goes is none

Crowd &crowd() {
  static auto *the = new Crowd; // outlives its threads
  return *the;
}

thread_local Clock::time_point looked; // when this thread last told
thread_local Spent sum;                // since then

} // namespace

Watch::Watch() {
  static const bool off = chosen_by_user() || torch::cuda::is_available();
  if (off) return;
  Clock::time_point now = Clock::now();
  if (looked == Clock::time_point{}) looked = now; // who computes once needs no team
  if (now - looked < kPause) return;
  last_look = now.time_since_epoch().count();
  crowd();
  on_ = true;
  int team;
  team_spent_since(team);
}

Watch::~Watch() {
  if (!on_) return;
  static std::atomic<Clock::rep> changed{0};
  int team = 1;
  Spent since = team_spent_since(team);
  sum = {sum.running + since.running, sum.queueing + since.queueing};
  Clock::time_point now = Clock::now();
  last_look = now.time_since_epoch().count();
  long long wanted = sum.running + sum.queueing;
  if (wanted < kEnough) return;
  double share = static_cast<double>(sum.queueing) / static_cast<double>(wanted);
  looked = now, sum = {};
  bool is = queueing, stayed = now.time_since_epoch().count() - changed > Clock::duration(kLeastStay).count();
  if (is ? share >= kQuietBelow || !stayed : share < kContendedFrom) return;
  if (!queueing.compare_exchange_strong(is, !is)) return; // another thread has seen it too
  changed = now.time_since_epoch().count();
  crowd().want(!is, team);
}

} // namespace rdpp
