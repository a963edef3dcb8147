//! A live request of which somebody took something away says so, and nothing is repaired.

use hallpass::{
    api::Phase::{Active, Revoking},
    domain::{Missing, Next},
};

use super::world::*;

fn lacks(names: &[&str]) -> World {
    let mut world = world(&policy());
    let missing = |name: &&str| Missing { target: (*name).into(), by: "root at noon".into() };
    world.missing = Some(names.iter().map(missing).collect());
    world
}

fn granted(answer: &Answer) -> &str {
    &answer.status().conditions.iter().find(|condition| condition.type_ == "Granted").expect("a condition").status
}

fn live() -> RequestBuilder {
    request("fix").approved_by(BOB, &policy()).with_finalizer().active(&[mapped(ours("admin"))])
}

#[test]
fn what_was_taken_away_is_said_once_and_not_repaired() {
    let in_place = lacks(&[]).decide(&live());
    in_place.is_for(Active, "Active");
    assert_eq!(granted(&in_place), "True");
    let answer = lacks(&["admin"]).decide_on(&in_place.after());
    answer.is_for(Active, "TakenAway").does(&[]).says("taken away in Keycloak: admin (\"admin\") by root at noon");
    assert_eq!(granted(&answer), "False");
    lacks(&["admin"]).decide_on(&answer.after()).writes_nothing();
    // After a restart nobody has looked yet: what was said stands.
    world(&policy()).decide_on(&answer.after()).writes_nothing();
    // And when it is back.
    let back = lacks(&[]).decide_on(&answer.after());
    back.is_for(Active, "Active").does(&[]);
    assert_eq!(granted(&back), "True");
}

#[test]
fn its_end_is_proved_all_the_same() {
    let missing = lacks(&["admin"]).decide(&live());
    let Next::At(deadline) = missing.decision.next else { panic!("no deadline") };
    let mut late = lacks(&["admin"]);
    late.now = deadline;
    late.decide_on(&missing.after()).is(Revoking).does(&["unmap admin"]);
}
