//! Every point of a life: which calls there are, and which faults make sense at each.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use crate::{
    life::{Company, Point, Story, Then, live},
    script::{Fault, Garbage, Place, When},
    stage::Stage,
};

/// Of the operator's own calls, as those of the guard, so many of each kind.
const GENERAL: usize = 1;
/// Of the calls of a start, so many of each kind.
const OF_A_START: usize = 2;

/// The calls of a story in which nothing fails: those about the person, and the operator's own.
pub struct Calls {
    pub story: Story,
    pub own: Vec<Place>,
    pub general: Vec<Place>,
}

/// Lives each story once without a fault and writes its calls down.
pub async fn record(stage: &Stage) -> Vec<Calls> {
    let all = stage.script.enlist(Vec::new());
    let stories = [Story::Three, Story::Overlap, Story::Voted, Story::Sessions, Story::ClientSessions];
    let lives = stories.into_iter().zip(&stage.slots);
    let told = join_all(
        lives.map(|(story, slot)| async move { (story, live(stage, slot, Company::none(), story, None).await) }),
    );
    let told = told.await;
    let own: Vec<(Story, Vec<Place>)> =
        told.iter().map(|(story, told)| (*story, stage.script.places_of(told.life))).collect();
    let everybodys = own.iter().flat_map(|(_, places)| places);
    let foreign = |place: &&Place| everybodys.clone().all(|own| own.kind != place.kind);
    let general = first_of_each(&stage.script.places_of(all), GENERAL);
    let mut general: Vec<Place> = general.iter().filter(foreign).cloned().collect();
    let mut calls = Vec::new();
    for (story, told) in told {
        assert_eq!(told.problems, Vec::<String>::new(), "{story:?} without a fault");
        told.clear(stage).await;
    }
    let kinds = |which: Story| {
        let of_it = own.iter().filter(move |(story, _)| *story == which);
        of_it.flat_map(|(_, places)| places).map(|place| place.kind.clone()).collect::<BTreeSet<String>>()
    };
    let of_sessions = kinds(Story::Sessions);
    for (story, mut own) in own {
        if story == Story::ClientSessions {
            own.retain(|place| place.kind.contains("sessions") && !of_sessions.contains(&place.kind));
            assert!(own.iter().any(|place| place.kind.contains("DELETE sessions")), "sessions are ended: {own:?}");
        }
        if story == Story::Sessions {
            own = own.into_iter().skip_while(|place| !place.kind.contains("sessions")).collect();
            assert!(own.iter().any(|place| place.kind.contains("logout")), "sessions are ended: {own:?}");
        }
        calls.push(Calls { story, own, general: std::mem::take(&mut general) });
    }
    stage.forget();
    stage.operator.is_ready().await;
    let told = live(stage, &stage.slots[0], Company::none(), Story::Start, None).await;
    assert_eq!(told.problems, Vec::<String>::new(), "the start without a fault");
    // All calls of a start are the operator's own.
    let general = first_of_each(&stage.script.places_of(told.life), OF_A_START);
    calls.push(Calls { story: Story::Start, own: Vec::new(), general });
    told.clear(stage).await;
    stage.forget();
    calls
}

/// How often the operator makes each kind of call about the person of a story in which nothing fails.
pub async fn cost(stage: &Stage, story: Story) -> BTreeMap<String, usize> {
    let told = live(stage, &stage.slots[0], Company::none(), story, None).await;
    assert_eq!(told.problems, Vec::<String>::new(), "{story:?} without a fault");
    // The last of each kind knows how many there were.
    let cost = stage.script.places_of(told.life).into_iter().map(|place| (place.kind, place.nth)).collect();
    told.clear(stage).await;
    stage.forget();
    cost
}

fn first_of_each(places: &[Place], most: usize) -> Vec<Place> {
    places.iter().filter(|place| place.nth <= most).cloned().collect()
}

/// All points of these calls.
pub fn enumerate(calls: &[Calls]) -> Vec<Point> {
    let mut points = Vec::new();
    for Calls { story, own, general } in calls {
        for (places, general) in [(own, false), (general, true)] {
            for place in places {
                // What is said of a person's calls needs no repetition for each of the operator's own.
                let enough = |(fault, then): &(Fault, Then)| {
                    !general || *then == Then::Nothing && !fault.is_for_all() || fault == &Fault::Kill(When::Before)
                };
                for (fault, then) in faults(&place.kind).into_iter().filter(enough) {
                    points.push(Point { story: *story, place: place.clone(), fault, then, general });
                }
            }
        }
    }
    points
}

/// What can happen to a call of this kind, and to the operator after it.
fn faults(kind: &str) -> Vec<(Fault, Then)> {
    use When::{After, Before};
    let (server, rest) = kind.split_once(' ').expect("a server");
    let method = rest.split(' ').next().unwrap_or_default();
    let mut faults = vec![Fault::Down(Before), Fault::Cut(Before), Fault::Hang(Before), Fault::Slow];
    faults.extend([500, 503, 401, 403].map(|status| Fault::Status(status, Before)));
    faults.extend([Garbage::Html, Garbage::Empty, Garbage::Truncated].map(Fault::Body));
    let mut all: Vec<(Fault, Then)> = faults.into_iter().map(|fault| (fault, Then::Nothing)).collect();
    all.extend([Then::Restart, Then::LongDeath].map(|then| (Fault::Kill(Before), then)));
    // Events are a help for people: nothing depends on them.
    if rest.starts_with("POST events") {
        return vec![(Fault::Cut(Before), Then::Nothing), (Fault::Kill(Before), Then::Restart)];
    }
    if matches!(method, "GET" | "WATCH") || rest == "POST token" {
        return all;
    }
    let mut unknown = vec![Fault::Cut(After), Fault::Hang(After), Fault::Late, Fault::HangLate];
    unknown.extend([500, 504].map(|status| Fault::Status(status, After)));
    all.extend(unknown.iter().map(|fault| (*fault, Then::Nothing)));
    all.push((Fault::Down(After), Then::Nothing));
    all.extend([Fault::Cut(After), Fault::Late].map(|fault| (fault, Then::Restart)));
    all.extend([Fault::Cut(After), Fault::Late].map(|fault| (fault, Then::LongDeath)));
    for then in [Then::Restart, Then::LongDeath] {
        all.extend([(Fault::Kill(After), then), (Fault::KillLate, then)]);
    }
    let refusal = if server == "api" { 409 } else { 429 };
    all.push((Fault::Status(refusal, Before), Then::Nothing));
    all
}
