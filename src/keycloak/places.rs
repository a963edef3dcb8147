//! How many calls of a sort are under way in a realm at once: as many as help. A server that has all it can do is not asked by more at a
//! time, which would only wait there, in front of those who sign in; one that takes long for each is.
//!
//! What helps is measured. While calls wait for a place, a look at some answers tells at which rate they come, and it is compared with
//! that at another width: if half of what was added arrives, more places help, else fewer do. A width that could not be
//! judged is left again. Where answers take quite another time than they did, what was found before does not count. Whoever refuses
//! many is asked less in any case, but removals keep some places always.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Duration, Instant},
};

/// How many places there can be. The first for a new server is 8: with 2 cores Keycloak 26.7 did 350 mappings a second with 8 calls at a time,
/// and 300 with 32.
const WIDTHS: [usize; 8] = [1, 2, 3, 4, 6, 8, 12, 16];
const FIRST: usize = 5;

/// Because answers take long there are no fewer places than this, and for removals not for any other reason either: what is due is
/// not to wait long because of what was measured amiss, or because a server refuses something else.
const LEAST: usize = 4;

/// So many answers are one look.
const LOOK: u32 = 32;
/// Looks until it is tried again whether another width helps.
const REST: u32 = 16;
/// A server whose answers take so many times as long as they did, or so many times less, is not as it was.
const CHANGED: u32 = 4;
/// A look does not go on after such a pause: nothing was asked then.
const PAUSE: Duration = Duration::from_secs(1);
/// A server whose answers take longer than this may have too much to do.
const QUICK: Duration = Duration::from_millis(100);

/// Places for calls of one sort.
pub(super) struct Places {
    free: Semaphore,
    /// Places that go when whoever has them is done.
    leaving: AtomicUsize,
}

/// Somebody's place.
pub(super) struct Place<'a> {
    permit: Option<SemaphorePermit<'a>>,
    places: &'a Places,
}

impl Places {
    pub(super) fn new(width: usize) -> Self {
        Self { free: Semaphore::new(width), leaving: AtomicUsize::new(0) }
    }

    /// Waits for a place; says whether it had to.
    pub(super) async fn take(&self) -> (Place<'_>, bool) {
        let (permit, waited) = match self.free.try_acquire() {
            Ok(permit) => (Some(permit), false),
            // It is never closed.
            Err(_) => (self.free.acquire().await.ok(), true),
        };
        (Place { permit, places: self }, waited)
    }

    fn resize(&self, from: usize, to: usize) {
        let mut more = to.saturating_sub(from);
        while more > 0 && self.one_fewer_leaves() {
            more -= 1;
        }
        self.free.add_permits(more);
        let fewer = from.saturating_sub(to);
        let gone = self.free.forget_permits(fewer);
        self.leaving.fetch_add(fewer - gone, Ordering::Relaxed);
    }

    /// Takes one off those that are to leave; whether there was one.
    fn one_fewer_leaves(&self) -> bool {
        self.leaving.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |leaving| leaving.checked_sub(1)).is_ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.places.one_fewer_leaves() {
            self.permit.take().into_iter().for_each(SemaphorePermit::forget);
        }
    }
}

/// How many places each sort of calls has.
pub(super) struct Width {
    step: usize,
    look: Look,
    /// The width and the rate of the look before, if there was another width.
    before: Option<(usize, f64)>,
    /// Looks that are still waited.
    rests: u32,
    /// How long an answer took in the look before, if there was one.
    took_before: Option<Duration>,
}

/// What was seen since the last change or look.
#[derive(Default)]
struct Look {
    began: Option<Instant>,
    last: Option<Instant>,
    answers: u32,
    took: Duration,
    refused: u32,
    waited: u32,
}

/// How a call ended.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) took: Duration,
    /// The server is away, or failed, or has too much to do.
    pub(super) refused: bool,
}

impl Default for Width {
    fn default() -> Self {
        Self { step: FIRST, look: Look::default(), before: None, rests: 0, took_before: None }
    }
}

impl Width {
    pub(super) const fn now(&self) -> usize {
        WIDTHS[self.step]
    }

    /// A call had to wait for its place.
    pub(super) fn waited(&mut self) {
        self.look.waited += 1;
    }

    /// Learns from an answer, and gives removals and each of the others as many places as help.
    pub(super) fn learn(&mut self, answer: Answer, now: Instant, removals: &Places, others: [&Places; 2]) {
        let from = self.now();
        self.decide(answer, now);
        let to = self.now();
        if to != from {
            tracing::debug!(from, to, "calls to Keycloak at a time");
            removals.resize(from.max(LEAST), to.max(LEAST));
            for places in others {
                places.resize(from, to);
            }
        }
    }

    fn decide(&mut self, Answer { took, refused }: Answer, now: Instant) {
        let look = &mut self.look;
        let goes_on = look.last.replace(now).is_some_and(|last| now.duration_since(last) < PAUSE + took);
        let Some(began) = look.began.filter(|_| goes_on) else {
            // From one answer to another: what was before it may have been idle.
            *look = Look { began: Some(now), last: Some(now), ..Look::default() };
            return;
        };
        look.answers += 1;
        look.took += took;
        look.refused += u32::from(refused);
        if look.answers < LOOK {
            return;
        }
        let Look { answers, took, refused, waited, .. } = std::mem::take(&mut self.look);
        let rate = f64::from(answers) / now.duration_since(began).as_secs_f64().max(0.001);
        let each = took / answers;
        let slow = each > QUICK;
        let before = self.before.take();
        let other_time = |took: Duration| each > took * CHANGED || each * CHANGED < took;
        let changed = self.took_before.replace(each).is_some_and(other_time);
        if refused * 5 >= answers {
            (self.step, self.rests) = (self.step.saturating_sub(1), 0);
        } else if changed {
            // What was found before does not count any more, and this may be some of each.
            self.rests = 0;
        } else if waited * 4 >= answers {
            self.compare(rate, slow, before);
        } else if let Some((width, _)) = before {
            // Others than we say how fast it goes: nothing is known of this width.
            self.step = WIDTHS.iter().position(|known| *known == width).unwrap_or(FIRST);
        }
    }

    fn compare(&mut self, rate: f64, slow: bool, before: Option<(usize, f64)>) {
        let (step, width) = (self.step, self.now());
        if width < LEAST {
            // Only refusals lead here. Removals have more places, so their rate says nothing.
            self.step += 1;
            return;
        }
        let helped = before.map(|(other, other_rate)| {
            #[expect(clippy::cast_precision_loss, reason = "they are few")]
            let wider = (width as f64 / other as f64).ln();
            ((rate / other_rate).ln() / wider > 0.5, wider > 0.0)
        });
        if helped.is_none() && self.rests > 0 {
            self.rests -= 1;
            return;
        }
        self.step = match helped {
            Some((false, true)) => step - 1,
            None | Some((false, false)) if slow && width > LEAST => step - 1,
            Some((false, false)) => step,
            // More places are more answers, or it is tried whether they are.
            None | Some((true, _)) => step + 1,
        }
        .min(WIDTHS.len() - 1);
        // Back to where it was, or nowhere: that is known.
        if helped == Some((false, true)) || self.step == step {
            self.rests = REST;
        } else {
            self.before = Some((width, rate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long an answer takes if so many are asked for at once, and how many of a hundred are refused.
    type Server = fn(usize) -> (Duration, u32);

    /// The widths, look by look, while there is more to ask than there are places.
    fn widths(width: &mut Width, server: Server, looks: usize) -> Vec<usize> {
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..looks {
            for i in 0..LOOK {
                let (took, refused) = server(width.now());
                now += took / u32::try_from(width.now()).unwrap_or(1);
                width.waited();
                width.decide(Answer { took, refused: i * 100 / LOOK < refused }, now);
            }
            seen.push(width.now());
        }
        seen
    }

    /// Does so many a second and no more, and takes so long if it is asked by one.
    fn busy(rate: u32, alone: Duration, width: usize) -> (Duration, u32) {
        (alone.max(Duration::from_secs(1) * u32::try_from(width).unwrap_or(1) / rate), 0)
    }

    #[tokio::test]
    async fn a_server_that_takes_long_for_each_is_asked_by_more() {
        let seen = widths(&mut Width::default(), |_| (Duration::from_secs(1), 0), 100);
        assert_eq!(seen.iter().skip(10).min(), Some(&12), "{seen:?}");
        assert_eq!(seen.iter().max(), Some(&16), "{seen:?}");
    }

    #[tokio::test]
    async fn a_server_that_has_all_it_can_do_is_asked_by_as_many_as_it_works_for() {
        // By four at a time it does all it can.
        let server: Server = |width| busy(20, Duration::from_millis(200), width);
        let seen = widths(&mut Width::default(), server, 100);
        let later: Vec<_> = seen.iter().skip(20).collect();
        assert!(later.iter().all(|width| (4..=6).contains(*width)), "{seen:?}");
    }

    #[tokio::test]
    async fn a_server_that_answers_quickly_is_asked_by_more_only_if_that_helps() {
        let seen = widths(&mut Width::default(), |width| busy(300, Duration::from_millis(10), width), 100);
        assert!(seen.iter().all(|width| [8, 12].contains(width)), "{seen:?}");
        assert!(seen.iter().filter(|width| **width == 8).count() > 80, "{seen:?}");
        let seen = widths(&mut Width::default(), |width| busy(3000, Duration::from_millis(10), width), 100);
        assert_eq!(seen.last(), Some(&16), "{seen:?}");
    }

    #[tokio::test]
    async fn a_server_that_becomes_slow_is_looked_at_anew() {
        // However far it was known: also while a width was just being tried.
        for looks in 1..30 {
            let mut width = Width::default();
            widths(&mut width, |width| busy(300, Duration::from_millis(10), width), looks);
            let seen = widths(&mut width, |_| (Duration::from_secs(1), 0), 8);
            assert_eq!(seen.last(), Some(&16), "after {looks} looks: {seen:?}");
        }
    }

    #[tokio::test]
    async fn a_server_of_which_each_look_says_something_else_keeps_its_places() {
        for times in [[20, 150], [150, 700], [10, 1000]] {
            let (mut width, mut now) = (Width::default(), Instant::now());
            // A look begins with an answer and has so many more.
            for i in 0..(LOOK + 1) * 100 {
                let took = Duration::from_millis(times[usize::from((i / (LOOK + 1)).is_multiple_of(2))]);
                now += took / u32::try_from(width.now()).unwrap_or(1);
                width.waited();
                width.decide(Answer { took, refused: false }, now);
                assert!((6..=12).contains(&width.now()), "{times:?}: {}", width.now());
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_refuses_many_is_asked_less_until_it_does_not() {
        let mut width = Width::default();
        let seen = widths(&mut width, |_| (Duration::from_millis(5), 30), 20);
        assert_eq!(seen.last(), Some(&1), "{seen:?}");
        let seen = widths(&mut width, |width| busy(3000, Duration::from_millis(5), width), 60);
        assert_eq!(seen.last(), Some(&16), "{seen:?}");
        // A few are a node that starts anew.
        let seen = widths(&mut Width::default(), |_| (Duration::from_millis(5), 10), 20);
        assert!(seen.iter().all(|width| *width >= 8), "{seen:?}");
    }

    #[tokio::test]
    async fn what_became_narrow_does_not_stay_so() {
        // After many were refused, by a server that takes long for each.
        let slow: Server = |_| (Duration::from_millis(150), 0);
        let mut width = Width::default();
        widths(&mut width, |_| (Duration::from_millis(150), 30), 20);
        assert_eq!(width.now(), 1);
        let seen = widths(&mut width, slow, 60);
        assert_eq!(seen.last(), Some(&16), "{seen:?}");
        // A few are refused all the time.
        let seen = widths(&mut Width::default(), |_| (Duration::from_millis(150), 4), 100);
        assert!(seen.iter().skip(20).all(|width| *width >= 8), "{seen:?}");
        // As long as others than we say how fast it goes, each width looks as good as any: never fewer than these.
        let (mut width, mut now, mut least) = (Width::default(), Instant::now(), usize::MAX);
        for i in 0..LOOK * 100 {
            now += Duration::from_millis(20);
            if (i / LOOK).is_multiple_of(2) {
                width.waited();
            }
            width.decide(Answer { took: Duration::from_millis(150), refused: false }, now);
            least = least.min(width.now());
        }
        assert_eq!(least, LEAST);
        let seen = widths(&mut width, slow, 60);
        assert_eq!(seen.last(), Some(&16), "{seen:?}");
    }

    #[tokio::test]
    async fn removals_keep_some_places() {
        let (removals, reads, giving) = (Places::new(8), Places::new(8), Places::new(8));
        let (mut width, mut now) = (Width::default(), Instant::now());
        for _ in 0..LOOK * 20 {
            now += Duration::from_millis(1);
            width.learn(Answer { took: Duration::from_millis(1), refused: true }, now, &removals, [&reads, &giving]);
        }
        let free = [&removals, &reads, &giving].map(|places| places.free.available_permits());
        assert_eq!(free, [LEAST, 1, 1]);
    }

    #[tokio::test]
    async fn while_nobody_waits_nothing_changes() {
        let mut width = Width::default();
        let start = Instant::now();
        for i in 0..1000 {
            width.decide(Answer { took: Duration::from_secs(1), refused: false }, start + Duration::from_secs(i));
        }
        assert_eq!(width.now(), 8);
    }

    #[tokio::test]
    async fn places_that_are_taken_go_when_they_are_free_again() {
        let places = Places::new(2);
        let (one, waited) = places.take().await;
        let (two, _) = places.take().await;
        assert!(!waited);
        places.resize(2, 1);
        drop(one);
        assert_eq!(places.free.available_permits(), 0);
        drop(two);
        assert_eq!(places.free.available_permits(), 1);
        // One that was to go stays.
        let (one, _) = places.take().await;
        places.resize(1, 0);
        places.resize(0, 2);
        drop(one);
        assert_eq!(places.free.available_permits(), 2);
    }
}
