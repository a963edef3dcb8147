//! All attacks on the API server, with and without the admission policy that fills in the caller: each is refused in
//! words that say why, changes nothing, and gives nobody anything. And what the audit log keeps of them.

use std::fs;

use hallpass::api::{APPROVE, Phase};
use serde_json::{Value, json};

use crate::{
    attacks_asking as asking, attacks_cast::Cast, attacks_ending as ending, attacks_holding as holding,
    attacks_voting as voting, world::World,
};

async fn every_attack_is_refused(cast: &mut Cast, stamp: bool) {
    cast.play(asking::in_another_s_name()).await;
    cast.play(asking::for_more_than_there_is()).await;
    cast.play(asking::what_is_asked_rightly(stamp)).await;
    cast.play(voting::who_has_no_say()).await;
    cast.play(voting::votes_that_are_there(stamp)).await;
    cast.play(voting::ballots(stamp)).await;
    cast.play(holding::what_only_the_operator_writes()).await;
    cast.play(holding::what_is_lent(stamp)).await;
    cast.play(ending::ends()).await;
    cast.play(ending::deletions()).await;
    println!("{} attacks", cast.refused.len());
    assert!(cast.refused.len() >= 240, "some are missing: {}", cast.refused.len());
}

#[tokio::test]
async fn more_than_two_hundred_attacks_are_refused() {
    let mut cast = Cast::new().await;
    every_attack_is_refused(&mut cast, true).await;
    cast.leaves().await;
}

/// As on Kubernetes before 1.36.
fn without_the_stamp(w: &World) -> crate::faults::Weakened {
    w.weaken(&["delete", "mutatingadmissionpolicybinding/hallpass-stamp", "mutatingadmissionpolicy/hallpass-stamp"])
}

#[tokio::test]
async fn they_are_refused_where_nobody_is_filled_in_too() {
    let mut cast = Cast::new().await;
    let stamp = without_the_stamp(&cast.w);
    cast.are_on_their_own().await;
    every_attack_is_refused(&mut cast, false).await;
    drop(stamp);
    cast.leaves().await;
}

#[tokio::test]
async fn where_nobody_is_filled_in_people_write_their_own_names() {
    // given
    let w = World::alone().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let policy = policy.ready().await;
    let epoch = w.epoch().await;
    let stamp = without_the_stamp(&w);
    w.another_epoch(epoch.as_ref()).await;
    let words = alice.asks(&policy).with("requester", Value::Null).refused().await;
    assert!(words.contains(&format!("set spec.requester to your own username: {}", alice.username)), "{words}");
    // when
    let request = alice.asks(&policy).create().await.unwrap();
    let message = request.says(Phase::Pending, "WaitingForVotes").await;
    // then: the command that is printed works with one's own name in it
    let command = message.split("To approve: ").nth(1).and_then(|rest| rest.split(" (to deny").next()).unwrap();
    assert!(command.ends_with("=YOUR-USERNAME"), "{message}");
    let typed = command.replace("YOUR-USERNAME", &bob.username);
    let arguments: Vec<&str> = typed.split(' ').skip(1).collect();
    let answer = bob.kubectl(&arguments).await;
    assert!(answer.status.success(), "{typed}: {answer:?}");
    request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    stamp.mended(&w).await;
    w.clean_up().await;
}

#[tokio::test]
async fn the_audit_log_tells_who_tried_what_refused_or_not() {
    // given
    let w = World::new().await;
    let (alice, bob, mallory) = (w.person("alice").await, w.person("bob").await, w.person("mallory").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]);
    let policy = policy.ready().await;
    assert!(mallory.asks(&policy).refused().await.contains("you may not ask"));
    let request = alice.asks(&policy).create().await.unwrap();
    let vote = |last: &str, ballot: &str| format!("{APPROVE}{ballot}.lead.{last}");
    let ballot = request.ballot().await;
    // when
    let (refused, accepted, end) = (vote("m", &ballot), vote("b", &ballot), "end.hallpass.dev/a".to_owned());
    mallory.annotates(&request, &refused, &mallory.username).await.unwrap_err();
    bob.annotates(&request, &accepted, &bob.username).await.unwrap();
    request.reaches(Phase::Active).await;
    alice.annotates(&request, &end, &alice.username).await.unwrap();
    request.reaches(Phase::Revoked).await;
    // then
    for (who, code, annotation, value) in [
        (&mallory, 403, "hallpass-identity/signal", refused),
        (&bob, 200, "hallpass-identity/signal", accepted),
        (&alice, 200, "hallpass-identity/signal", end),
        (&alice, 201, "hallpass-identity/asks", format!("{} under {}", alice.username, policy.name)),
        (&mallory, 403, "hallpass-identity/asks", format!("{} under {}", mallory.username, policy.name)),
        (&mallory, 403, "hallpass-policy/policy", format!("{} generation 1", policy.name)),
    ] {
        let told = |entry: &Value| {
            entry["user"]["username"] == json!(who.username)
                && entry["responseStatus"]["code"] == code
                && entry["annotations"][annotation] == json!(value)
        };
        w.until(&format!("{} {code} {annotation} {value}", who.username), async || {
            let log = fs::read_to_string(&w.stack.audit_log).unwrap();
            let of_them = log.lines().filter(|line| line.contains(&who.username));
            of_them.filter_map(|line| serde_json::from_str(line).ok()).any(|entry: Value| told(&entry))
        })
        .await;
    }
    w.clean_up().await;
}
