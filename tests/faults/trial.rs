//! Points, tried one after another or, where nobody else feels the fault, several at once.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use futures::future::join_all;
use jiff::SignedDuration;

use crate::{
    dice::Dice,
    life::{Company, Point, Story, live},
    points::{enumerate, record},
    stage::Stage,
};

/// How many lives at a time.
const SLOTS: usize = 12;
/// So many are tried however long it takes: less proves nothing.
const LEAST: usize = 10;
/// Points that found a defect once. A part always begins with them, and tries all of them.
const FOUND: [&str; 3] = [
    "Three/api PUT accessrequests/*/status#2/kill-late/Restart",
    "Start/api GET accessrequests#1/hang-before/Nothing",
    "Overlap/api PUT accessrequests/*/status#6/kill-after/Restart",
];

/// A number of the environment.
pub fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The seed of this run: `HALLPASS_SEED`, or chance.
pub fn seed() -> u64 {
    number("HALLPASS_SEED").unwrap_or_else(|| getrandom::u64().expect("random") >> 20)
}

/// Whether a point is tried here: with `HALLPASS_FAULT_SHARE=0/2` those of the first of two stacks. By its name, so that the
/// shares make up the whole whatever each stack has recorded.
fn is_ours(point: &Point) -> bool {
    let Ok(words) = env::var("HALLPASS_FAULT_SHARE") else { return true };
    let (share, shares) = words.split_once('/').expect("HALLPASS_FAULT_SHARE is one number/another");
    let (share, shares): (u64, u64) = (share.parse().expect("a number"), shares.parse().expect("a number"));
    let mut hasher = DefaultHasher::new();
    point.to_string().hash(&mut hasher);
    hasher.finish() % shares == share
}

/// Counts of a run.
#[derive(Default)]
struct Score {
    tried: usize,
    hit: usize,
    failed: Vec<String>,
    /// By fault: how often tried, failed, and how late the latest access was gone.
    by_fault: BTreeMap<String, (usize, usize, SignedDuration)>,
}

/// A run over points.
struct Trial {
    stage: Stage,
    score: Score,
    begin: Instant,
    total: usize,
    /// Of those so many have to be tried.
    least: usize,
}

fn is_found(point: &Point) -> bool {
    FOUND.contains(&point.to_string().as_str())
}

/// Tries points: at most so many, and for at most so long, if that is said.
pub async fn try_points(most: Option<usize>, time: Option<Duration>) {
    let seed = seed();
    let begin = Instant::now();
    let stage = Stage::prepare(SLOTS).await;
    let mut points = enumerate(&record(&stage).await);
    println!("faults: {} points, HALLPASS_SEED={seed}", points.len());
    let names: HashSet<String> = points.iter().map(Point::to_string).collect();
    let gone: Vec<&str> = FOUND.into_iter().filter(|name| !names.contains(*name)).collect();
    assert!(gone.is_empty(), "a life has no such call any more, what once found a defect is not tried: {gone:?}");
    if let Ok(words) = env::var("HALLPASS_FAULT") {
        points.retain(|point| words.split(' ').all(|word| point.to_string().contains(word)));
        assert!(!points.is_empty(), "HALLPASS_FAULT: no point has {words:?} in its name");
    }
    points.retain(is_ours);
    Dice::new(seed).shuffle(&mut points);
    if let Some(most) = most.filter(|most| *most < points.len()) {
        points.sort_by_key(|point| !is_found(point));
        points.truncate(most);
    }
    let total = points.len();
    let least = if time.is_some() { total.min(LEAST) } else { total };
    let mut trial = Trial { stage, score: Score::default(), begin, total, least };
    for round in rounds(points) {
        let is_up = time.is_some_and(|time| begin.elapsed() > time);
        if !is_up || trial.score.tried < least || round.iter().any(is_found) {
            trial.round(&round).await;
        }
    }
    trial.ends(seed).await;
}

/// Points that can be tried at the same time, the kinds of rounds in turn.
fn rounds(points: Vec<Point>) -> Vec<Vec<Point>> {
    let (alone, together): (Vec<Point>, Vec<Point>) = points.into_iter().partition(Point::is_alone);
    let (starts, others): (Vec<Point>, Vec<Point>) =
        together.into_iter().partition(|point| point.story == Story::Start);
    let in_rounds = |points: Vec<Point>, size| points.chunks(size).map(<[Point]>::to_vec).collect::<Vec<_>>();
    let kinds = [in_rounds(others, SLOTS), in_rounds(alone, 1), in_rounds(starts, SLOTS)];
    let longest = kinds.iter().map(Vec::len).max().unwrap_or_default();
    let mut places: Vec<(usize, Vec<Point>)> = Vec::new();
    for kind in kinds {
        let length = kind.len();
        places.extend(kind.into_iter().enumerate().map(|(i, round)| (i * longest / length, round)));
    }
    places.sort_by_key(|(place, _)| *place);
    places.into_iter().map(|(_, round)| round).collect()
}

impl Trial {
    /// One round; a point that fails in company is tried alone as well, to see whose fault it is.
    async fn round(&mut self, points: &[Point]) {
        for (point, failed) in self.lives(points).await {
            let words = if failed && points.len() > 1 {
                let alone = self.lives(std::slice::from_ref(&point)).await;
                if alone[0].1 { "alone, too" } else { "only beside others" }
            } else {
                "alone"
            };
            if failed {
                self.score.failed.push(format!("{point} ({words})"));
            }
        }
        let Score { tried, hit, failed, .. } = &self.score;
        let (seconds, failed) = (self.begin.elapsed().as_secs(), failed.len());
        println!(
            "faults: {seconds} s, {tried} of {} tried, {hit} hit, {failed} failed; last {}",
            self.total, points[0]
        );
    }

    /// Lives at the same time, and whether each failed.
    async fn lives(&mut self, points: &[Point]) -> Vec<(Point, bool)> {
        let stage = &self.stage;
        stage.operator.is_ready().await;
        let company = Company::of(points.len());
        let lives = points.iter().zip(&stage.slots);
        let lives = lives.map(|(point, slot)| live(stage, slot, company.clone(), point.story, Some(point)));
        let mut told = join_all(lives).await;
        let mut failed = Vec::new();
        for (point, told) in points.iter().zip(&mut told) {
            // Once more, when all is over: nothing comes late.
            if told.problems.is_empty() {
                told.look_at_keycloak(stage).await;
            }
            let bad = !told.problems.is_empty();
            self.score.tried += 1;
            self.score.hit += usize::from(told.hit);
            let entry = self.score.by_fault.entry(format!("{} {:?}", point.fault, point.then)).or_default();
            *entry = (entry.0 + 1, entry.1 + usize::from(bad), entry.2.max(told.late));
            if !told.hit {
                println!("faults: not hit: {point}");
            }
            if bad {
                told.report(stage, point).await;
            }
            failed.push((point.clone(), bad));
        }
        for told in &told {
            told.clear(stage).await;
        }
        stage.forget();
        failed
    }

    async fn ends(self, seed: u64) {
        let Score { tried, hit, failed, by_fault } = self.score;
        println!("faults: tried, failed, and how late the latest was gone:");
        for (fault, (tried, failed, late)) in &by_fault {
            println!("  {fault:<28} {tried:>5} {failed:>4} {late:#}");
        }
        let (seconds, total, least) = (self.begin.elapsed().as_secs(), self.total, self.least);
        println!(
            "faults: {tried} of {total} tried in {seconds} s, {hit} hit, {} failed, HALLPASS_SEED={seed}",
            failed.len()
        );
        self.stage.clear().await;
        assert!(failed.is_empty(), "to try one again: HALLPASS_FAULT='…' make fault-test\n{}", failed.join("\n"));
        assert!(tried >= least, "only {tried} points were tried, and not {least}");
        assert!(hit * 10 >= tried * 9, "of {tried} faults only {hit} happened: nothing is known of the others");
    }
}
