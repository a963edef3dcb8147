//! What the two proxies do to the calls of the operator, and what they saw. A rule names one call: the n-th of its kind
//! that is about one life.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{process::Child, sync::watch};

/// Before a call is passed on, or after it was answered and before the operator hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// What can be in place of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    Html,
    Empty,
    Truncated,
    /// An empty list, in more bytes than anybody has to read.
    Huge,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operator dies, as by `kill -9`.
    Kill(When),
    /// The operator dies, and the call arrives [`LATE`] afterwards.
    KillLate,
    /// The connection ends without an answer.
    Cut(When),
    /// No answer ever comes.
    Hang(When),
    /// Connections are cut and new ones refused, for [`DOWN`].
    Down(When),
    /// The server answers with this status.
    Status(u16, When),
    /// The server answers with this status, and that it wants to be asked again after so many seconds.
    Busy(u16, u64),
    /// The server does it, and answers with 200 and this.
    Body(Garbage),
    /// The connection is cut, and the call arrives [`LATE`] afterwards.
    Late,
    /// No answer ever comes, and the call arrives [`LATE`] after the operator has given up.
    HangLate,
    /// The answer comes, but only after [`SLOW`].
    Slow,
}

/// How long a server is down.
pub const DOWN: Duration = Duration::from_millis(1500);
/// How long a call still travels after the operator knows that no answer will come: less than the realm's `settleTime`.
pub const LATE: Duration = Duration::from_millis(1200);
/// How long a slow server takes.
pub const SLOW: Duration = Duration::from_millis(2500);

impl Fault {
    /// Whether all feel it, so that nothing else can be tried at the same time.
    pub fn is_for_all(self) -> bool {
        matches!(self, Self::Kill(_) | Self::KillLate | Self::Down(_))
    }

    /// Whether the server never hears of the call.
    pub fn comes_before(self) -> bool {
        match self {
            Self::Kill(when) | Self::Cut(when) | Self::Hang(when) | Self::Down(when) | Self::Status(_, when) => {
                when == When::Before
            }
            Self::Busy(..) => true,
            Self::Body(_) | Self::KillLate | Self::Late | Self::HangLate | Self::Slow => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = |when: &When| if *when == When::Before { "before" } else { "after" };
        match self {
            Self::Kill(at) => write!(f, "kill-{}", when(at)),
            Self::KillLate => write!(f, "kill-late"),
            Self::Cut(at) => write!(f, "cut-{}", when(at)),
            Self::Hang(at) => write!(f, "hang-{}", when(at)),
            Self::Down(at) => write!(f, "down-{}", when(at)),
            Self::Status(status, at) => write!(f, "{status}-{}", when(at)),
            Self::Busy(status, seconds) => write!(f, "{status}-for-{seconds}s"),
            Self::Body(Garbage::Huge) => write!(f, "huge"),
            Self::Body(Garbage::Html) => write!(f, "html"),
            Self::Body(Garbage::Empty) => write!(f, "empty"),
            Self::Body(Garbage::Truncated) => write!(f, "truncated"),
            Self::Late => write!(f, "late"),
            Self::HangLate => write!(f, "hang-late"),
            Self::Slow => write!(f, "slow"),
        }
    }
}

/// One call, in a way that is the same in each run: the n-th of a kind (`keycloak DELETE users/*/role-mappings/realm`),
/// counted from one, or [`EACH`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub kind: String,
    pub nth: usize,
}

/// In place of a number.
const EACH: usize = 0;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.kind, self.nth)
    }
}

/// A call that a proxy saw.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: Instant,
    pub kind: String,
    /// Method, path and query.
    pub line: String,
    /// About which lives it is.
    pub lives: Vec<usize>,
    pub fault: Option<Fault>,
    /// What the server answered, if it was asked.
    pub answer: Option<u16>,
}

/// A life: how its calls are told from others, and what is to happen to one of them.
struct Life {
    keys: Vec<String>,
    /// Calls before this one are not counted.
    since: usize,
    rule: Option<(Place, Fault)>,
    /// Calls of the rule's kind so far.
    seen: usize,
    /// The rule has done what it says.
    hit: bool,
    counts: bool,
}

/// What both proxies share.
#[derive(Default)]
pub struct Script {
    lives: Mutex<Vec<Life>>,
    calls: Mutex<Vec<Call>>,
    /// Calls that are passed on later.
    travelling: AtomicUsize,
    /// The operator, to be killed.
    pub operator: Mutex<Option<Child>>,
    /// Counts the times at which a server went down.
    pub down: [watch::Sender<usize>; 2],
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("lock")
}

impl Script {
    /// One more life. Its calls have one of these keys in them; without keys all calls are its own.
    pub fn enlist(&self, keys: Vec<String>) -> usize {
        let mut lives = locked(&self.lives);
        lives.push(Life { keys, since: 0, rule: None, seen: 0, hit: false, counts: true });
        lives.len() - 1
    }

    /// Does this to each call of this kind that is about a life, from now on.
    pub fn lasts(&self, life: usize, kind: &str, fault: Fault) {
        self.arm(life, Some((Place { kind: kind.to_owned(), nth: EACH }, fault)), false);
    }

    /// Counts the calls of a life from now on, and does this to one of them. With `all` the calls of everybody count.
    pub fn arm(&self, life: usize, rule: Option<(Place, Fault)>, all: bool) {
        let life = &mut locked(&self.lives)[life];
        (life.since, life.rule) = (locked(&self.calls).len(), rule);
        if all {
            life.keys.clear();
        }
    }

    /// Does this to a call of anybody, from now on.
    pub fn strike(&self, place: Place, fault: Fault) {
        let life = self.enlist(Vec::new());
        self.arm(life, Some((place, fault)), true);
    }

    /// How many of the faults have happened, and all that were to happen.
    pub fn hits(&self) -> (usize, usize) {
        let lives = locked(&self.lives);
        let rules = || lives.iter().filter(|life| life.rule.is_some());
        (rules().filter(|life| life.hit).count(), rules().count())
    }

    /// Nothing more happens to anybody.
    pub fn dismiss_all(&self) {
        locked(&self.lives).iter_mut().for_each(|life| life.counts = false);
    }

    /// Adds a key that was not known before.
    pub fn add_key(&self, life: usize, key: &str) {
        let keys = &mut locked(&self.lives)[life].keys;
        if !keys.is_empty() {
            keys.push(key.to_owned());
        }
    }

    /// Nothing more happens to the calls of this life; whether its fault has happened.
    pub fn dismiss(&self, life: usize) -> bool {
        let life = &mut locked(&self.lives)[life];
        life.counts = false;
        life.hit
    }

    /// Whether the fault of this life has happened.
    pub fn is_hit(&self, life: usize) -> bool {
        locked(&self.lives)[life].hit
    }

    /// Writes a call down, and says what is to happen to it.
    pub fn comes(&self, kind: &str, line: String, body: &[u8]) -> (usize, Option<Fault>) {
        let mut fault = None;
        let mut about = Vec::new();
        let body = String::from_utf8_lossy(body);
        for (number, life) in locked(&self.lives).iter_mut().enumerate().filter(|(_, life)| life.counts) {
            let own = |key: &String| line.contains(key.as_str()) || body.contains(key.as_str());
            if !life.keys.is_empty() && !life.keys.iter().any(own) {
                continue;
            }
            about.push(number);
            let Some((place, what)) = &life.rule else { continue };
            if place.kind == kind {
                life.seen += 1;
                if place.nth == EACH || life.seen == place.nth {
                    life.hit = true;
                    fault = Some(*what);
                }
            }
        }
        let mut calls = locked(&self.calls);
        calls.push(Call { at: Instant::now(), kind: kind.to_owned(), line, lives: about, fault, answer: None });
        (calls.len() - 1, fault)
    }

    pub fn answered(&self, call: usize, status: u16) {
        if let Some(call) = locked(&self.calls).get_mut(call) {
            call.answer = Some(status);
        }
    }

    /// The calls of one life so far.
    pub fn calls_of(&self, life: usize) -> Vec<Call> {
        locked(&self.calls).iter().filter(|call| call.lives.contains(&life)).cloned().collect()
    }

    /// Every call of this life as a place, since it was armed.
    pub fn places_of(&self, life: usize) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        let since = locked(&self.lives)[life].since;
        let calls = locked(&self.calls);
        for Call { kind, .. } in calls[since..].iter().filter(|call| call.lives.contains(&life)) {
            let kind = kind.clone();
            let nth = places.iter().filter(|place| place.kind == kind).count() + 1;
            places.push(Place { kind, nth });
        }
        places
    }

    /// Forgets all lives and calls. Nobody may be under way.
    pub fn forget(&self) {
        locked(&self.lives).clear();
        locked(&self.calls).clear();
    }

    /// Kills the operator, at this very moment.
    pub async fn kill(&self) {
        let operator = locked(&self.operator).take();
        if let Some(mut operator) = operator {
            let _ = operator.start_kill();
            let _ = operator.wait().await;
        }
    }

    /// One more call is passed on later.
    pub fn departs(self: &Arc<Self>) -> Travelling {
        self.travelling.fetch_add(1, Ordering::AcqRel);
        Travelling(self.clone())
    }

    /// Whether nothing is on its way to a server that the operator has been told nothing of.
    pub fn is_quiet(&self) -> bool {
        self.travelling.load(Ordering::Acquire) == 0
    }
}

/// A call on its way.
pub struct Travelling(Arc<Script>);

impl Drop for Travelling {
    fn drop(&mut self) {
        self.0.travelling.fetch_sub(1, Ordering::AcqRel);
    }
}
