#include "fiber/builtins/warp.h"

#include <memory>
#include <vector>

#include "fiber/run/scheduler.h"

namespace mlpkern::fiber {
namespace {

// The repeated meetings of one set of lanes. The first lane at the next meeting may arrive before
// the others have read the values of this one, but not before they have left the previous one, so
// two sets of values are enough.
struct Meeting {
  unsigned mask = 0;
  unsigned arrived = 0;
  unsigned turn = 0;
  const char* what = nullptr;
  Site site{};
  Gift gifts[2][32];
};

struct Warp {
  std::vector<std::unique_ptr<Meeting>> meetings;
  size_t used = 0;  // of them belong to this block
};

std::vector<Warp> warps;

Meeting& meeting_of(Warp& warp, unsigned mask) {
  for (size_t i = 0; i < warp.used; ++i)
    if (warp.meetings[i]->mask == mask) return *warp.meetings[i];
  if (warp.used == warp.meetings.size()) warp.meetings.push_back(std::make_unique<Meeting>());
  Meeting& meeting = *warp.meetings[warp.used++];
  meeting.mask = mask;
  meeting.arrived = 0;
  return meeting;
}

}  // namespace

void forget_meetings(size_t threads) {
  if (warps.size() < (threads + 31) / 32) warps.resize((threads + 31) / 32);
  for (Warp& warp : warps) warp.used = 0;
}

const Gift* meet(unsigned mask, const void* mine, size_t bytes, const char* what, Site site) {
  const unsigned self = thread_number(), lane = self % 32, first = self - lane;
  if (!(mask >> lane & 1))
    refuse("%s:%d: %s names the lanes %08x, and lane %u is not among them", site.file, site.line,
           what, mask, lane);
  if (const unsigned missing = mask & ~lanes_left(self / 32))
    refuse("%s:%d: %s names the lanes %08x, and lane %d has exited or never was", site.file,
           site.line, what, mask, __builtin_ctz(missing));
  Meeting& meeting = meeting_of(warps[self / 32], mask);
  if (!meeting.arrived) {
    meeting.what = what;
    meeting.site = site;
  } else if ((meeting.what != what && std::strcmp(meeting.what, what) != 0) ||
             meeting.site != site) {
    refuse("divergent warp: %s at %s:%d, but other lanes of %08x wait in %s at %s:%d", what,
           site.file, site.line, mask, meeting.what, meeting.site.file, meeting.site.line);
  }
  Gift* const gifts = meeting.gifts[meeting.turn & 1];
  if (bytes) std::memcpy(gifts[lane].bytes, mine, bytes);
  meeting.arrived |= 1u << lane;
  if (meeting.arrived != mask) {
    sleep_in_warp(what, site, mask);
    return gifts;
  }
  meeting.arrived = 0;
  ++meeting.turn;
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1 && i != lane) wake(first + i);
  return gifts;
}

}  // namespace mlpkern::fiber
