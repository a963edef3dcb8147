//! How many writes are on their way to the API server at once. A thousand at once take it longer than an answer is waited for;
//! then each counts as lost and is sent again, and nothing gets through.
//!
//! What ends has a queue of its own, and a time limit counts from when a write is sent. While the API server does not answer
//! nobody queues: what is due goes without it.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::error::ApiError;

/// Writes of statuses and finalizers at once, in each of the two queues.
const AT_ONCE: usize = 16;
/// Events at once: they are a help for people, and wait.
const EVENTS_AT_ONCE: usize = 4;

/// What waits for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A removal that is due. It does not wait for long.
    Removal,
    /// What else belongs to an end.
    End,
    /// Anything else.
    Other,
}

impl Urgency {
    /// How long an answer is waited for. kube repeats 429, 503 and 504 by itself, up to 15 times: revocations must not wait for
    /// that.
    pub const fn limit(self) -> Duration {
        match self {
            Self::Removal => Duration::from_secs(2),
            Self::End | Self::Other => super::error::API_LIMIT,
        }
    }

    /// How long a turn is waited for. What is given must not have been decided on long ago; what is gone can wait to be said.
    const fn patience(self) -> Duration {
        match self {
            Self::Removal => Duration::from_secs(10),
            Self::End => Duration::from_secs(30),
            Self::Other => Duration::from_secs(5),
        }
    }
}

/// The queues.
pub struct Writes {
    ends: Semaphore,
    others: Semaphore,
    events: Semaphore,
    /// Whether the last write that was sent was answered.
    answered: watch::Sender<bool>,
}

impl Default for Writes {
    fn default() -> Self {
        let queue = || Semaphore::new(AT_ONCE);
        Self {
            ends: queue(),
            others: queue(),
            events: Semaphore::new(EVENTS_AT_ONCE),
            answered: watch::Sender::new(true),
        }
    }
}

/// The right to send one write.
pub struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    limit: Duration,
    answered: &'a watch::Sender<bool>,
}

impl Writes {
    /// Waits for a turn. Whether this process may write, and what it knows, is to be looked at after this.
    pub async fn turn(&self, urgency: Urgency) -> Result<Turn<'_>, ApiError> {
        let queue = match urgency {
            Urgency::Removal | Urgency::End => &self.ends,
            Urgency::Other => &self.others,
        };
        let turn = |permit| Turn { _permit: permit, limit: urgency.limit(), answered: &self.answered };
        if let Ok(permit) = queue.try_acquire() {
            return Ok(turn(permit));
        }
        let mut answered = self.answered.subscribe();
        tokio::select! {
            biased;
            _ = answered.wait_for(|answered| !answered) => Err(ApiError::NoTurn),
            Ok(permit) = queue.acquire() => Ok(turn(permit)),
            () = tokio::time::sleep(urgency.patience()) => Err(ApiError::NoTurn),
        }
    }

    /// Waits until an Event may be published.
    pub async fn event(&self) -> Option<SemaphorePermit<'_>> {
        self.events.acquire().await.ok()
    }
}

impl Turn<'_> {
    /// Sends it.
    pub async fn send<T>(self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
        let outcome = super::error::within(self.limit, call).await;
        self.answered.send_replace(!outcome.as_ref().is_err_and(ApiError::is_silence));
        outcome
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
    async fn each_has_its_whole_limit_however_many_there_are() {
        let (writes, begin) = (Writes::default(), Instant::now());
        let time = Duration::from_millis(1900);
        let done = join_all((0..4 * AT_ONCE).map(|_| answers_after(&writes, Urgency::Removal, time))).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        assert_eq!(begin.elapsed(), time * 4, "so many at once, and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_does_not_queue_behind_what_does_not() {
        let (writes, begin) = (Writes::default(), Instant::now());
        let others = join_all((0..AT_ONCE).map(|_| answers_after(&writes, Urgency::Other, Duration::from_secs(4))));
        let end = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            answers_after(&writes, Urgency::End, Duration::ZERO).await.map(|()| begin.elapsed())
        };
        let (others, end) = tokio::join!(others, end);
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(end.ok(), Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_queues_for_a_server_that_does_not_answer() {
        let (writes, begin) = (Writes::default(), Instant::now());
        let hangs = async || {
            let turn = writes.turn(Urgency::Removal).await?;
            turn.send(pending::<Result<(), kube::Error>>()).await
        };
        let done = join_all((0..1000).map(|_| hangs())).await;
        assert_eq!(begin.elapsed(), Urgency::Removal.limit(), "all know as soon as one does");
        let sent = done.iter().filter(|done| matches!(done, Err(ApiError::Timeout(_)))).count();
        assert_eq!(sent, AT_ONCE);
        // Those that find a place go on asking.
        assert!(answers_after(&writes, Urgency::Removal, Duration::ZERO).await.is_ok());
        let both =
            join_all((0..2 * AT_ONCE).map(|_| answers_after(&writes, Urgency::End, Duration::from_secs(1)))).await;
        assert!(both.iter().all(Result::is_ok), "it answers again: {both:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_is_not_waited_for_for_ever() {
        let (writes, begin) = (Writes::default(), Instant::now());
        let mut turns = Vec::new();
        for _ in 0..AT_ONCE {
            turns.push(writes.turn(Urgency::Other).await);
        }
        assert!(matches!(writes.turn(Urgency::Other).await, Err(ApiError::NoTurn)));
        assert_eq!(begin.elapsed(), Urgency::Other.patience());
        drop(turns);
        assert!(writes.turn(Urgency::Other).await.is_ok());
    }
}
