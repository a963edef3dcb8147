//! A read that several callers need at once is made once.
//!
//! Who asks after a read began cannot use it: what it is about may have changed between its beginning and the question.
//! So one read runs at a time, and all who ask meanwhile share the next one.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

/// However long a read takes, nobody waits longer than this for the next one to begin.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The last answer to a question.
pub struct Shared<T, E> {
    last: Mutex<Option<Last<T, E>>>,
    /// So many times as long as a read took, the next one waits: whoever asks meanwhile shares that.
    rests: u32,
}

struct Last<T, E> {
    began: Instant,
    ended: Instant,
    answer: Result<T, E>,
}

impl<T, E> Default for Shared<T, E> {
    fn default() -> Self {
        Self::resting(0)
    }
}

impl<T, E> Shared<T, E> {
    /// One whose reads take no more than a part of the time, however many ask: after each it rests so many times as long.
    pub fn resting(rests: u32) -> Self {
        Self { last: Mutex::default(), rests }
    }
}

impl<T: Clone, E: Clone> Shared<T, E> {
    /// The answer of a read that began at `not_before` or since then; of a new one if there is none. An error is nothing
    /// to keep: it is the answer for those only who waited when its read began.
    pub async fn get<F>(&self, not_before: Instant, read: impl FnOnce() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let asked = Instant::now();
        // Whoever reads holds the lock; the first of those who wait for it is the next to read.
        let mut last = self.last.lock().await;
        if let Some(Last { began, ended, answer }) = &*last {
            let good_since = if answer.is_ok() { not_before.min(asked) } else { asked };
            if *began >= good_since {
                return answer.clone();
            }
            if self.rests > 0 && answer.is_ok() {
                sleep_until(*ended + ((*ended - *began) * self.rests).min(LONGEST_REST)).await;
            }
        }
        let began = Instant::now();
        let answer = read().await;
        *last = Some(Last { began, ended: Instant::now(), answer: answer.clone() });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    const READ: Duration = Duration::from_millis(100);

    /// Something that changes with each read of it, and takes a while to read.
    #[derive(Default)]
    struct World {
        shared: Shared<usize, usize>,
        reads: AtomicUsize,
        broken: bool,
    }

    impl World {
        async fn ask_since(&self, not_before: Instant) -> Result<usize, usize> {
            let read = || async {
                let read = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
                sleep(READ).await;
                if self.broken { Err(read) } else { Ok(read) }
            };
            self.shared.get(not_before, read).await
        }

        async fn ask(&self) -> Result<usize, usize> {
            self.ask_since(Instant::now()).await
        }

        /// Asks after a while.
        async fn ask_in(&self, millis: u64) -> Result<usize, usize> {
            sleep(Duration::from_millis(millis)).await;
            self.ask().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_the_same_time_shares_a_read() {
        for broken in [false, true] {
            let w = World { broken, ..World::default() };
            let answers = join_all((0..10).map(|_| w.ask())).await;
            let answer = if broken { Err(1) } else { Ok(1) };
            assert_eq!(answers, vec![answer; 10]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_a_read_runs_shares_the_next_one() {
        for broken in [false, true] {
            let w = World { broken, ..World::default() };
            let answers = join_all([0, 1, 50, 99].map(|millis| w.ask_in(millis))).await;
            let answers: Vec<usize> = answers.into_iter().map(|answer| answer.unwrap_or_else(|read| read)).collect();
            assert_eq!(answers, [1, 2, 2, 2], "broken: {broken}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reads_that_rest_are_fewer_and_serve_all_who_asked_meanwhile() {
        let w = World { shared: Shared::resting(2), ..World::default() };
        let start = Instant::now();
        let answers = join_all([0, 50, 150, 299, 350].map(|millis| w.ask_in(millis))).await;
        assert_eq!(answers, [Ok(1), Ok(2), Ok(2), Ok(2), Ok(3)]);
        assert_eq!(start.elapsed(), READ * 7);
        sleep(READ * 2).await;
        let alone = Instant::now();
        assert_eq!((w.ask().await, alone.elapsed()), (Ok(4), READ));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_who_is_content_with_its_age() {
        let w = World::default();
        let before = Instant::now();
        assert_eq!(w.ask().await, Ok(1));
        advance(READ).await;
        assert_eq!(w.ask_since(before).await, Ok(1));
        assert_eq!(w.ask_since(before + Duration::from_millis(1)).await, Ok(2));
        assert_eq!(w.ask().await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_not_kept() {
        let w = World { broken: true, ..World::default() };
        let before = Instant::now();
        assert_eq!(w.ask().await, Err(1));
        assert_eq!(w.ask_since(before).await, Err(2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_read_to_the_next() {
        let w = World::default();
        let impatient = tokio::time::timeout(READ / 2, w.ask());
        let (gave_up, answer) = tokio::join!(impatient, w.ask_in(1));
        assert!(gave_up.is_err());
        assert_eq!(answer, Ok(2));
    }
}
