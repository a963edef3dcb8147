//! A random adversary: thousands of random writes by eight identities, and nothing is granted but what the policy allows.
//!
//! The writers share a handful of requests and two policies, while Keycloak's administrator takes people out of groups
//! and the admission policies are away for a moment, a few times. Everything that the API server shows is kept in
//! [`crate::adversary_ledger`], and [`crate::adversary_model`] says what may follow from it.
//!
//! `HALLPASS_SEED` repeats the moves of a run, `HALLPASS_WRITES` says how many there are.

use std::{
    collections::{BTreeMap, HashSet},
    env, fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use hallpass::api::FINALIZER;
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::RwLock,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    adversary_cast::{ADMIN, ALICE, Cast, LEA, NAMES, SAM, WRITERS},
    adversary_ledger::{Ledger, Version},
    adversary_moves::{Dice, Kind},
    report::Report,
    world::{GLANCE, World},
};

/// How many writes, unless `HALLPASS_WRITES` says otherwise.
const WRITES: u64 = 2400;
/// How long they take together. Access has to begin and end meanwhile, and epochs too.
const PACE: Duration = Duration::from_secs(75);
/// How long it may take until everything has come to its end afterwards.
const PATIENCE: Duration = Duration::from_mins(2);

/// What all tasks of a run share.
pub struct Arena {
    pub w: World,
    pub cast: Cast,
    ledger: Mutex<Ledger>,
    /// Whether the admission policies are away. Held while a write is sent that waits for them.
    pub away: RwLock<bool>,
}

impl Arena {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("lock")
    }

    /// One identity makes its moves.
    async fn writes(self: Arc<Self>, who: usize, seed: u64, moves: u64) -> Result<(), String> {
        let mut dice = Dice::new(seed, who);
        let mut pace = interval(PACE / u32::try_from(moves).expect("not so many"));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for i in 0..moves {
            pace.tick().await;
            // What is too rare to be left to chance.
            let remakes = who == ADMIN && i == moves / 2;
            let next = if remakes { dice.with(Kind::RemakePolicy) } else { dice.next_move(who) };
            self.tries(who, &next).await.map_err(|why| format!("{}: {why}", self.cast.writers[who].title))?;
        }
        Ok(())
    }

    /// What the requests of these names say at the end: how many were tried, accepted, refused, by kind.
    fn summary(&self) -> BTreeMap<Kind, (usize, usize)> {
        let mut table: BTreeMap<Kind, (usize, usize)> = BTreeMap::new();
        for entry in &self.ledger().entries {
            let (accepted, refused) = table.entry(entry.kind).or_default();
            *if entry.answer.is_ok() { accepted } else { refused } += 1;
        }
        table
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The operator's process: its id, and how much it has logged.
fn operator(w: &World) -> (u64, usize) {
    let state = w.stack.dev.parent().and_then(Path::parent).expect("the stack's folder");
    let record = fs::read(state.join("run/hallpass.json")).expect("the operator runs");
    let record: Value = serde_json::from_slice(&record).expect("JSON");
    (record["pid"].as_u64().expect("a process"), fs::read(&w.stack.operator.log).unwrap_or_default().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_granted_but_what_the_policy_allows_whatever_is_written() {
    let seed = number("HALLPASS_SEED").unwrap_or_else(|| getrandom::u64().expect("random") >> 20);
    let writes = number("HALLPASS_WRITES").unwrap_or(WRITES);
    println!("adversary: HALLPASS_SEED={seed} HALLPASS_WRITES={writes}");
    // given
    let w = World::alone().await;
    let cast = Cast::gather(&w).await;
    let before = operator(&w);
    let (ledger, away) = (Mutex::new(Ledger::new()), RwLock::default());
    let arena = Arc::new(Arena { w: w.clone(), cast, ledger, away });
    // when, and then
    if let Err(why) = arena.clone().run(seed, writes).await {
        println!("{}", arena.report().await);
        panic!("{why}\nto repeat the moves: HALLPASS_SEED={seed} HALLPASS_WRITES={writes}");
    }
    arena.nothing_is_left().await;
    let after = operator(&w);
    assert_eq!(before.0, after.0, "the operator was started anew");
    let log = fs::read(&w.stack.operator.log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log[before.1..]);
    assert!(!log.contains("panicked"), "the operator panicked");
    arena.was_worth_it();
    arena.lets_go().await;
    w.clean_up().await;
}

impl Arena {
    /// All write, while somebody looks all the time whether it is right; then everything comes to its end by itself.
    async fn run(self: Arc<Self>, seed: u64, writes: u64) -> Result<(), String> {
        let mut watching = JoinSet::new();
        self.begin_to_watch(&mut watching).await;
        self.two_agree(&mut Dice::new(seed, WRITERS + 2)).await?;
        let mut writing = JoinSet::new();
        for who in 0..WRITERS {
            writing.spawn(self.clone().writes(who, seed, writes / WRITERS as u64));
        }
        writing.spawn(self.clone().upsets_keycloak(Dice::new(seed, WRITERS)));
        writing.spawn(self.clone().takes_the_policies_away(Dice::new(seed, WRITERS + 1)));
        while !writing.is_empty() {
            tokio::select! {
                Some(done) = writing.join_next() => done.expect("no panic")?,
                Some(done) = watching.join_next() => done.expect("no panic")?,
            }
        }
        let begin = Instant::now();
        while self.is_anything_open().await {
            if begin.elapsed() > PATIENCE {
                return Err(format!("not every request comes to an end within {PATIENCE:?}"));
            }
            tokio::select! {
                () = tokio::time::sleep(GLANCE) => {}
                Some(done) = watching.join_next() => done.expect("no panic")?,
            }
        }
        self.looks_once().await?;
        watching.shutdown().await;
        Ok(())
    }

    /// One request gets its votes while nobody disturbs: later that takes luck, two people, of whom some are shut out at times, on
    /// one ballot.
    async fn two_agree(&self, dice: &mut Dice) -> Result<(), String> {
        let mut ask = dice.with(Kind::Ask);
        ask.policy = 0;
        self.tries(ALICE, &ask).await?;
        self.w.until("there is a ballot", async || self.one_is(|version| !version.ballot().is_empty())).await;
        for who in [LEA, SAM] {
            let mut vote = dice.with(Kind::Vote);
            vote.deny = false;
            self.tries(who, &vote).await?;
        }
        self.w.until("it is granted", async || self.one_is(|version| version.phase() == "Active")).await;
        Ok(())
    }

    /// Whether a request that is there is like this now.
    fn one_is(&self, like: impl Fn(&Version) -> bool) -> bool {
        let ledger = self.ledger();
        NAMES.iter().filter_map(|name| ledger.present(name)).any(|history| like(history.last()))
    }

    /// Objects, Events, what the operator said, and what Keycloak says.
    async fn report(&self) -> String {
        let people = self.cast.writers.iter().filter_map(|writer| writer.person.as_ref());
        let report = Report {
            stack: self.w.stack.clone(),
            namespace: self.w.namespace.clone(),
            people: people.map(|person| person.user.clone()).collect(),
            policies: self.cast.policies.to_vec(),
        };
        report.tell().await
    }

    /// Whether a request is not final yet.
    async fn is_anything_open(&self) -> bool {
        let all = self.w.requests().list(&ListParams::default()).await.expect("an answer");
        all.items.iter().any(|request| {
            !request.phase().is_some_and(hallpass::api::Phase::is_final)
                // Whoever added a finalizer of their own keeps it.
                || (request.metadata.deletion_timestamp.is_some() && request.finalizers().iter().any(|f| f == FINALIZER))
        })
    }

    /// No role is left, on anybody of ours or elsewhere.
    async fn nothing_is_left(&self) {
        for (role, holders) in self.holders().await.into_iter().enumerate() {
            assert!(holders.is_empty(), "{} is left: {holders:?}", self.cast.roles[role].name);
        }
    }

    /// A run that grants nothing, or refuses nothing, proves nothing.
    fn was_worth_it(&self) {
        let table = self.summary();
        println!("{:<20} {:>8} {:>8}", "kind of write", "accepted", "refused");
        for (kind, (accepted, refused)) in &table {
            println!("{:<20} {accepted:>8} {refused:>8}", format!("{kind:?}"));
        }
        let ledger = self.ledger();
        let model = crate::adversary_model::Model { cast: &self.cast, ledger: &ledger };
        let granted = |staged: bool| {
            let given = ledger.requests.values().filter(|history| {
                let ballot = !history.last().ballot().is_empty();
                ballot == staged && model.activation(history).is_some()
            });
            given.count()
        };
        let refused: usize = table.values().map(|(_, refused)| refused).sum();
        let votes = table.get(&Kind::Vote).copied().unwrap_or_default().0;
        let away = |rv: &u64| ledger.windows.iter().any(|(from, to)| from < rv && rv <= to);
        let through: HashSet<u64> =
            ledger.entries.iter().filter_map(|entry| entry.answer.clone().ok()).filter(away).collect();
        let phases = ledger.requests.values().fold(BTreeMap::<&str, usize>::new(), |mut phases, history| {
            *phases.entry(history.last().phase()).or_default() += 1;
            phases
        });
        println!(
            "{} writes, {refused} refused, {votes} votes accepted, {} granted without votes and {} with, {} let through while \
             the admission policies were away ({} times), {} requests ended as {phases:?}",
            ledger.entries.len(),
            granted(false),
            granted(true),
            through.len(),
            ledger.windows.len(),
            ledger.requests.len(),
        );
        for kind in Kind::ALL.iter().filter(|kind| kind.is_on()) {
            assert!(table.contains_key(kind), "{kind:?} was never tried");
        }
        assert!(granted(false) >= 3 && granted(true) >= 1, "too little was granted");
        assert!(votes >= 30 && refused >= 300 && through.len() >= 10, "too little was tried");
    }

    /// Finalizers that somebody added while nobody kept them from it.
    async fn lets_go(&self) {
        let requests = self.w.requests();
        for request in requests.list(&ListParams::default()).await.expect("an answer") {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            if !request.finalizers().is_empty() && !request.finalizers().iter().any(|f| f == FINALIZER) {
                let _ = requests.patch_metadata(&request.name_any(), &PatchParams::default(), &patch).await;
            }
        }
    }
}
