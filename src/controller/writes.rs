//! How many writes of requests are on their way to the API server at once. A thousand at once take it longer than an answer is
//! waited for; then each counts as lost and is sent again, and nothing gets through.
//!
//! There are four queues, so that a removal that is due waits neither for what was given nor for what is over, nor for those that
//! a Keycloak that is away lets nobody remove; and these are not tried again only when all that is over is written. Who does not get
//! a turn in time sends nothing: a removal goes on without its status.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::error::{API_LIMIT, ApiError, within};

/// Writes at once, in each queue.
const AT_ONCE: usize = 16;
/// Events at once: they are a help for people, and wait.
const EVENTS_AT_ONCE: usize = 4;
/// How long an Event waits. What is said later than that helps nobody.
const EVENT_LIMIT: Duration = Duration::from_secs(30);

/// What waits for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A removal that is due.
    Removal,
    /// That a removal has failed, before it is tried again.
    Failure,
    /// What else belongs to an end.
    End,
    /// Anything else.
    Other,
}

impl Urgency {
    /// How long a turn is waited for, and then an answer.
    const fn limit(self) -> Duration {
        match self {
            Self::Removal => Duration::from_secs(2),
            Self::Failure | Self::End | Self::Other => API_LIMIT,
        }
    }
}

/// The queues.
pub struct Writes {
    removals: Semaphore,
    failures: Semaphore,
    ends: Semaphore,
    others: Semaphore,
    events: Semaphore,
}

impl Default for Writes {
    fn default() -> Self {
        let queue = || Semaphore::new(AT_ONCE);
        let events = Semaphore::new(EVENTS_AT_ONCE);
        Self { removals: queue(), failures: queue(), ends: queue(), others: queue(), events }
    }
}

/// The right to send one write.
pub struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    limit: Duration,
}

impl Writes {
    /// Waits for a turn. Whether this process may write is to be looked at after this.
    pub async fn turn(&self, urgency: Urgency) -> Result<Turn<'_>, ApiError> {
        let queue = match urgency {
            Urgency::Removal => &self.removals,
            Urgency::Failure => &self.failures,
            Urgency::End => &self.ends,
            Urgency::Other => &self.others,
        };
        let limit = urgency.limit();
        match timeout(limit, queue.acquire()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, limit }),
            Ok(Err(_)) | Err(_) => Err(ApiError::NoTurn),
        }
    }

    /// Waits until an Event may be published; nothing if it has waited for too long.
    pub async fn event(&self) -> Option<SemaphorePermit<'_>> {
        timeout(EVENT_LIMIT, self.events.acquire()).await.ok()?.ok()
    }
}

impl Turn<'_> {
    /// Sends it.
    pub fn send<T>(
        self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> impl Future<Output = Result<T, ApiError>> {
        let call = within(self.limit, call);
        async move {
            let _turn = self;
            call.await
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{join_all, pending};
    use tokio::time::Instant;

    use super::*;

    async fn answers_after(writes: &Writes, urgency: Urgency, time: Duration) -> Result<(), ApiError> {
        let turn = writes.turn(urgency).await?;
        let call = async {
            tokio::time::sleep(time).await;
            Ok(())
        };
        turn.send(call).await
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_sent_at_once_and_each_has_its_limit_from_then() {
        let (writes, begin) = (Writes::default(), Instant::now());
        let time = Duration::from_millis(1900);
        let two_rounds = join_all((0..2 * AT_ONCE).map(|_| answers_after(&writes, Urgency::Removal, time))).await;
        assert!(two_rounds.iter().all(Result::is_ok), "{two_rounds:?}");
        assert_eq!(begin.elapsed(), time * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_waits_neither_for_what_is_over_nor_for_what_is_given() {
        let (writes, begin) = (Writes::default(), Instant::now());
        let slow = Duration::from_secs(4);
        let ends = join_all((0..AT_ONCE).map(|_| answers_after(&writes, Urgency::End, slow)));
        let others = join_all((0..AT_ONCE).map(|_| answers_after(&writes, Urgency::Other, slow)));
        let removal = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            answers_after(&writes, Urgency::Removal, Duration::ZERO).await.map(|()| begin.elapsed())
        };
        let (_, _, removal) = tokio::join!(ends, others, removal);
        assert_eq!(removal.ok(), Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_removed_says_so_before_all_that_is_over_does() {
        let (writes, begin) = (Writes::default(), Instant::now());
        let ends = join_all((0..AT_ONCE).map(|_| answers_after(&writes, Urgency::End, Duration::from_secs(4))));
        let failure =
            async { answers_after(&writes, Urgency::Failure, Duration::from_secs(3)).await.map(|()| begin.elapsed()) };
        let (_, failure) = tokio::join!(ends, failure);
        assert_eq!(failure.ok(), Some(Duration::from_secs(3)), "and its answer is waited for as long as others");
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_answers_a_removal_is_held_up_no_longer_than_by_its_own_write() {
        let (writes, begin) = (Writes::default(), Instant::now());
        let hangs = async || {
            let turn = writes.turn(Urgency::Removal).await?;
            turn.send(pending::<Result<(), kube::Error>>()).await
        };
        let done = join_all((0..1000).map(|_| hangs())).await;
        assert!(begin.elapsed() <= Urgency::Removal.limit() * 2, "{:?}", begin.elapsed());
        let sent = done.iter().filter(|done| matches!(done, Err(ApiError::Timeout(_)))).count();
        assert!((AT_ONCE..=2 * AT_ONCE).contains(&sent), "{sent}");
        assert!(answers_after(&writes, Urgency::Removal, Duration::ZERO).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_waits_for_too_long_is_left_out() {
        let writes = Writes::default();
        let turns = join_all((0..EVENTS_AT_ONCE).map(|_| writes.event())).await;
        assert!(turns.iter().all(Option::is_some));
        assert!(writes.event().await.is_none());
        drop(turns);
        assert!(writes.event().await.is_some());
    }
}
