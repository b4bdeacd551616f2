#include "contention.h"

#include <fcntl.h>
#include <omp.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace rdpp {

namespace {

// What a thread has spent on a processor and in a queue for one, nanoseconds.
struct Spent {
  long long running = 0, queueing = 0;
};

// What this thread has spent since the last call; nothing where the kernel does not tell.
Spent spent_since() {
  struct Account {
    const int file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    Spent last;
    ~Account() {
      if (file >= 0) close(file);
    }
  };
  thread_local Account account;
  char text[96];
  ssize_t n = account.file < 0 ? 0 : pread(account.file, text, sizeof text - 1, 0);
  if (n <= 0) return {};
  text[n] = 0;
  Spent now;
  if (sscanf(text, "%lld %lld", &now.running, &now.queueing) != 2) return {};
  Spent since = {now.running - account.last.running, now.queueing - account.last.queueing};
  account.last = now;
  return since;
}

Spent team_spent_since() {
  long long running = 0, queueing = 0;
#pragma omp parallel reduction(+ : running, queueing)
  {
    Spent mine = spent_since();
    running += mine.running, queueing += mine.queueing;
  }
  return {running, queueing};
}

// Whether so many threads can be started. libgomp ends the process where it cannot.
bool can_start(int n) {
  std::vector<std::thread> threads;
  std::promise<void> tried;
  std::shared_future<void> over = tried.get_future().share();
  bool could = true;
  try {
    while (n-- > 0) threads.emplace_back([over] { over.wait(); });
  } catch (const std::system_error &) {
    could = false;
  }
  tried.set_value();
  for (auto &t : threads) t.join();
  return could;
}

// A team of threads that sleep. While it is there libgomp has more threads than there are processors, and then all of
// its threads spin a hundred times where they would spin 300,000 times.
class Crowd {
public:
  // want has it come or go, in its own time.
  void want(bool yes) {
    std::lock_guard<std::mutex> lock(mutex_);
    wanted_ = yes;
    if (!yes) {
      over_.notify_all();
    } else if (!there_) {
      try {
        std::thread([this] { stay(); }).detach();
        there_ = true;
      } catch (const std::system_error &) { // threads go on spinning
      }
    }
  }

private:
  void stay() {
    int n = omp_get_num_procs() + 1;
    if (can_start(n)) {
      omp_set_dynamic(0);
      std::atomic<int> came{0};
#pragma omp parallel num_threads(n)
      came++;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    over_.wait(lock, [this] { return !wanted_; });
    there_ = false; // and with this thread its team ends
  }

  std::mutex mutex_;
  std::condition_variable over_;
  bool wanted_ = false, there_ = false;
};

std::atomic<bool> queueing{false};

bool chosen_by_user() {
  for (const char *name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}) {
    const char *value = getenv(name);
    if (value && *value) return true;
  }
  return false;
}

} // namespace

bool contended() { return queueing; }

void mind_contention() {
  using Clock = std::chrono::steady_clock;
  constexpr auto pause = std::chrono::milliseconds(100), least_stay = std::chrono::milliseconds(1000);
  constexpr double contended_from = 0.1, quiet_below = 0.03; // of the time in which threads wanted to run
  constexpr long long enough = 20'000'000;                   // nanoseconds of it, to tell by
  static const bool off = chosen_by_user();
  static auto *crowd = new Crowd; // outlives its threads
  static std::atomic<Clock::rep> changed{0};
  thread_local Clock::time_point looked;
  thread_local Spent sum;
  if (off) return;
  Clock::time_point now = Clock::now();
  if (now - looked < pause) return;
  looked = now;
  Spent since = team_spent_since();
  sum = {sum.running + since.running, sum.queueing + since.queueing};
  long long wanted = sum.running + sum.queueing;
  if (wanted < enough) return;
  double share = static_cast<double>(sum.queueing) / static_cast<double>(wanted);
  sum = {};
  bool is = queueing, stayed = now.time_since_epoch().count() - changed > Clock::duration(least_stay).count();
  if (is ? share >= quiet_below || !stayed : share < contended_from) return;
  if (!queueing.compare_exchange_strong(is, !is)) return; // another thread has seen it too
  changed = now.time_since_epoch().count();
  crowd->want(!is);
}

} // namespace rdpp
