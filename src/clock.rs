//! The clocks of this machine, and how far other machines' are from them.
//!
//! The wall clock can jump. The boot-time clock cannot: it counts the time since the machine was started, suspension
//! included (Rust's `Instant` and tokio's timers leave that out). It means nothing to another machine.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// A moment on the boot-time clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(Duration);

impl Boot {
    /// Now.
    pub fn now() -> Self {
        Self(reading(ClockId::Boottime))
    }

    /// The time from an earlier moment to this one; nothing if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// So much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

fn reading(clock: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    let (seconds, nanoseconds) = (u64::try_from(tv_sec), u32::try_from(tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// By how much the wall clock (since 1970) is ahead of the boot-time clock: it changes when the wall clock is set.
fn wall_ahead_of_boot() -> SignedDuration {
    Timestamp::now().as_duration().saturating_sub(signed(Boot::now().0))
}

/// How the clocks of this machine went, compared with one another.
#[derive(Clone, Copy, Debug)]
pub struct Going {
    /// The wall clock is so much ahead of the boot-time clock.
    wall: SignedDuration,
    /// For so long the machine was suspended.
    suspended: Duration,
}

impl Going {
    /// What is small is reading one after the other, or a clock that is corrected slowly.
    const TOLERATED: Duration = Duration::from_millis(250);

    /// As it is now.
    pub fn now() -> Self {
        let monotonic = reading(ClockId::Monotonic);
        Self { wall: wall_ahead_of_boot(), suspended: Boot::now().0.saturating_sub(monotonic) }
    }

    /// By how much the wall clock was set forward (negative: back), and for how long the machine was suspended, since this was
    /// last told; nothing if neither is worth telling.
    pub fn broke(&mut self) -> Option<(SignedDuration, SignedDuration)> {
        let now = Self::now();
        let set = now.wall.saturating_sub(self.wall);
        let suspended = signed(now.suspended).saturating_sub(signed(self.suspended));
        if set.unsigned_abs() <= Self::TOLERATED && suspended.unsigned_abs() <= Self::TOLERATED {
            return None;
        }
        *self = now;
        Some((set, suspended))
    }
}

/// Another machine's clock, as it was last seen.
#[derive(Debug, Default)]
pub struct OtherClock(Mutex<Option<Sight>>);

/// By how much the other clock is ahead of our boot-time clock: at least and at most. Between two sights it goes on with ours,
/// whatever becomes of our wall clock.
#[derive(Clone, Copy, Debug)]
struct Sight {
    least: SignedDuration,
    most: SignedDuration,
}

impl Sight {
    /// It said `then` (whole seconds since 1970) at some moment between these.
    fn new(then: i64, before: Boot, after: Boot) -> Self {
        let from_boot = |seconds: i64, boot: Boot| SignedDuration::from_secs(seconds).saturating_sub(signed(boot.0));
        Self { least: from_boot(then, after), most: from_boot(then.saturating_add(1), before) }
    }

    fn ahead_of(self, wall_ahead_of_boot: SignedDuration) -> i64 {
        let Self { least, most } = self;
        let nearest = wall_ahead_of_boot.clamp(least, most.max(least));
        nearest.saturating_sub(wall_ahead_of_boot).as_secs()
    }
}

impl OtherClock {
    /// It said `then` (whole seconds since 1970) at some moment since `before`.
    pub fn said(&self, then: i64, before: Boot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Sight::new(then, before, Boot::now()));
    }

    /// It is not known any more.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many seconds it is ahead of our wall clock now (negative: behind); `None` if it was never seen. What may be due to
    /// the time that the answer took counts as none.
    pub fn ahead(&self) -> Option<i64> {
        let sight = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sight.map(|sight| sight.ahead_of(wall_ahead_of_boot()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_of_or_behind_ours_by_what_the_answers_time_does_not_explain() {
        // Ours said 1000.9 when the machine had run for 50 s, and 1002.9 when the answer was there.
        let (before, after) = (Boot(Duration::from_secs(50)), Boot(Duration::from_secs(52)));
        let ours = SignedDuration::from_millis(950_900);
        for (then, expected) in [(1000, 0), (1002, 0), (1040, 37), (960, -39)] {
            assert_eq!(Sight::new(then, before, after).ahead_of(ours), expected, "{then}");
        }
    }

    #[test]
    fn when_our_clock_is_set_it_is_known_at_once_how_far_others_are_from_it() {
        let boot = Boot(Duration::from_secs(50));
        let (sight, ours) = (Sight::new(1000, boot, boot), SignedDuration::from_secs(950));
        for (jump, expected) in [(0, 0), (3600, -3599), (-3600, 3600)] {
            assert_eq!(sight.ahead_of(ours + SignedDuration::from_secs(jump)), expected, "{jump}");
        }
    }
}
