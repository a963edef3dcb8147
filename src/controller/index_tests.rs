//! Whose a status is, as versions of one request come in.
#![allow(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test")]

use kube::runtime::{
    reflector::{self, store::Writer},
    watcher::Event,
};

use serde_json::json;

use super::*;
use crate::{
    api::{AccessRequestSpec, Phase},
    guard::seal::Keys,
    leader::Times,
};

/// The watch, and the index over it.
struct World {
    keys: Keys,
    watch: Writer<AccessRequest>,
    index: Index,
}

fn world() -> World {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut keys = Keys::default();
    keys.add("k1", &[1; 32]).expect("a key");
    let config = kube::Config::new("http://localhost:1".parse().expect("a URL"));
    let keyring = Keyring::with(kube::Client::try_from(config).expect("a client"), keys.clone());
    let (store, watch) = reflector::store();
    let (gone, leadership) = (tokio::sync::mpsc::unbounded_channel().0, Leadership::new(Times::default()));
    World { keys, watch, index: Index::new(store, Arc::new(keyring), gone, leadership) }
}

impl World {
    /// The request in this version, with a status that the operator wrote.
    fn sealed(&self, version: u64, phase: Phase) -> AccessRequest {
        let mut request = blank(version);
        let status = AccessRequestStatus { phase: Some(phase), ..AccessRequestStatus::default() };
        request.status = Some(AccessRequestStatus { seal: self.keys.seal("u1", &status), ..status });
        request
    }

    /// The watch brings this.
    fn brings(&mut self, event: &Event<AccessRequest>) {
        self.watch.apply_watcher_event(event);
        self.index.follow(event);
    }

    /// The watch shows this.
    fn shows(&mut self, request: &AccessRequest) -> Known {
        self.brings(&Event::Apply(request.clone()));
        self.index.newest(&Arc::new(request.clone()))
    }

    /// What the watch shows is the operator's.
    #[track_caller]
    fn ours(&mut self, request: &AccessRequest) {
        let known = self.shows(request);
        assert!(known.is_ours());
        assert_eq!(known.stored.metadata.resource_version, request.metadata.resource_version);
        assert_eq!(self.index.all().len(), 1);
    }

    /// What the watch shows is not the operator's; this counts instead, in the version that there is.
    #[track_caller]
    fn not_ours(&mut self, request: &AccessRequest, instead: Option<Phase>) {
        let known = self.shows(request);
        assert!(!known.is_ours());
        let version = &request.metadata.resource_version;
        assert_eq!(known.trusted.as_ref().and_then(|trusted| trusted.phase()), instead);
        assert!(known.trusted.is_none_or(|trusted| &trusted.metadata.resource_version == version));
        assert_eq!(self.index.all().len(), usize::from(instead.is_some()));
    }
}

/// The request in this version, and nobody has looked.
fn blank(version: u64) -> AccessRequest {
    let mut request = AccessRequest::new("fix", AccessRequestSpec::default());
    request.metadata.namespace = Some("team".into());
    request.metadata.uid = Some("u1".into());
    request.metadata.resource_version = Some(version.to_string());
    request
}

fn unsealed(mut request: AccessRequest) -> AccessRequest {
    if let Some(status) = &mut request.status {
        status.seal = None;
    }
    request
}

#[tokio::test]
async fn what_is_seen_first() {
    let mut with_finalizer = blank(1);
    with_finalizer.metadata.finalizers = Some(vec![FINALIZER.into()]);
    world().ours(&blank(1));
    world().not_ours(&with_finalizer, None);
    let sealed = world().sealed(1, Phase::Active);
    world().ours(&sealed);
    world().not_ours(&unsealed(sealed.clone()), None);
    let mut of_another = sealed;
    of_another.metadata.uid = Some("u2".into());
    world().not_ours(&of_another, None);
}

#[tokio::test]
async fn what_is_remembered_counts_instead_of_what_is_not_ours() {
    let mut world = world();
    let (pending, active) = (world.sealed(2, Phase::Pending), world.sealed(3, Phase::Active));
    world.ours(&blank(1));
    world.index.sends(&AccessRequest { status: pending.status.clone(), ..blank(1) });
    world.ours(&pending);
    world.index.sends(&AccessRequest { status: active.status.clone(), ..pending.clone() });
    world.ours(&active);
    world.index.fence("u1");
    let at = |version: u64, request: &AccessRequest| AccessRequest { status: request.status.clone(), ..blank(version) };
    let remembered = Some(Phase::Active);
    world.not_ours(&at(4, &pending), remembered);
    world.not_ours(&blank(5), remembered);
    world.not_ours(&at(6, &unsealed(active.clone())), remembered);
    let expired = world.sealed(7, Phase::Expired);
    world.not_ours(&expired, remembered);
    let mut edited = at(8, &active);
    edited.status.get_or_insert_default().ballot = Some("forged".into());
    world.not_ours(&edited, remembered);
    // An annotation was written, or it was put right.
    world.ours(&at(9, &active));
}

#[tokio::test]
async fn what_was_sent_is_ours_when_it_is_seen_whatever_was_answered() {
    let mut world = world();
    let (pending, approved, active) =
        (world.sealed(1, Phase::Pending), world.sealed(2, Phase::Approved), world.sealed(2, Phase::Active));
    world.ours(&pending);
    // Two answers are lost.
    for status in [&approved.status, &active.status] {
        world.index.sends(&AccessRequest { status: status.clone(), ..pending.clone() });
    }
    world.ours(&pending);
    world.ours(&active);
    world.index.fence("u1");
    // Of two writes on one version, one at most comes to be: the other one would be somebody else's now.
    world.not_ours(&AccessRequest { status: approved.status, ..blank(3) }, Some(Phase::Active));
}

#[tokio::test]
async fn a_write_that_something_else_came_before_never_comes_to_be() {
    let mut world = world();
    let (pending, active) = (world.sealed(1, Phase::Pending), world.sealed(2, Phase::Active));
    world.ours(&pending);
    world.index.sends(&AccessRequest { status: active.status.clone(), ..pending.clone() });
    let annotated = AccessRequest { status: pending.status, ..blank(2) };
    world.ours(&annotated);
    world.index.fence("u1");
    world.not_ours(&AccessRequest { status: active.status, ..blank(3) }, Some(Phase::Pending));
}

#[tokio::test]
async fn a_write_of_ours_is_known_before_the_watch_shows_it() {
    let mut world = world();
    let (pending, active) = (world.sealed(1, Phase::Pending), world.sealed(2, Phase::Active));
    world.ours(&pending);
    world.index.sends(&AccessRequest { status: active.status.clone(), ..pending.clone() });
    world.index.put(active.clone());
    let known = world.shows(&pending);
    assert!(known.is_ours() && known.stored.phase() == Some(Phase::Active));
    world.ours(&active);
    // Whoever looks at what was there before sees what is there now.
    let known = world.shows(&pending);
    assert!(known.is_ours() && known.stored.phase() == Some(Phase::Active));
}

#[tokio::test]
async fn a_write_of_ours_is_remembered_although_somebody_writes_over_it_before_anybody_looks() {
    let mut world = world();
    let (approved, activating) = (world.sealed(1, Phase::Approved), world.sealed(2, Phase::Activating));
    world.ours(&approved);
    world.index.sends(&AccessRequest { status: activating.status.clone(), ..approved.clone() });
    world.index.put(activating);
    world.not_ours(&unsealed(world.sealed(3, Phase::Approved)), Some(Phase::Activating));
}

#[tokio::test]
async fn what_an_earlier_leader_sent_can_arrive_until_a_write_of_this_one_was_acknowledged() {
    let until = |status: &mut AccessRequestStatus, second: i64| {
        let at = |second| Time(Timestamp::from_second(second).expect("a time"));
        let grant = json!({"startsAt": at(0), "deadline": at(second), "targets": []});
        status.grant = serde_json::from_value(grant).expect("a grant");
    };
    let sealed = |world: &World, version: u64, phase: Phase, deadline: i64| {
        let mut request = world.sealed(version, phase);
        let status = request.status.get_or_insert_default();
        status.seal = None;
        until(status, deadline);
        status.seal = world.keys.seal("u1", status);
        request
    };
    for (what, fenced, phase, deadline, ours) in [
        ("it goes on", false, Phase::Revoking, 100, true),
        ("it is over", false, Phase::Expired, 100, true),
        ("nothing on its way can arrive", true, Phase::Revoking, 100, false),
        ("it goes back", false, Phase::Activating, 100, false),
        ("it was prolonged", false, Phase::Active, 101, false),
    ] {
        let mut world = world();
        let active = sealed(&world, 1, Phase::Active, 100);
        world.ours(&active);
        if fenced {
            world.index.fence("u1");
        }
        let late = sealed(&world, 2, phase, deadline);
        assert_eq!(world.shows(&late).is_ours(), ours, "{what}");
    }
    let mut over = world();
    let expired = sealed(&over, 1, Phase::Expired, 100);
    over.ours(&expired);
    let revoked = sealed(&over, 2, Phase::Revoked, 100);
    over.not_ours(&revoked, Some(Phase::Expired));
}

#[tokio::test]
async fn what_another_machine_gave_ends_by_its_clock_if_ours_is_far_behind() {
    for (ahead, time_is_up) in [(0, false), (2, false), (60, true)] {
        let mut world = world();
        let now = Timestamp::now();
        world.index.leadership.api_server_clock().said(now.as_second() + ahead, Boot::now());
        let mut active = world.sealed(1, Phase::Active);
        let status = active.status.get_or_insert_default();
        let at = |seconds| Time(Timestamp::from_second(now.as_second() + seconds).expect("a time"));
        status.grant =
            serde_json::from_value(json!({"startsAt": at(-30), "deadline": at(30), "targets": []})).expect("a grant");
        status.seal = None;
        status.seal = world.keys.seal("u1", status);
        let known = world.shows(&active);
        assert_eq!(known.as_trusted().map(|request| request.time_is_up), Some(time_is_up), "{ahead} s ahead");
    }
}

#[tokio::test]
async fn it_is_news_once() {
    let mut world = world();
    let active = world.sealed(1, Phase::Active);
    world.ours(&active);
    for (forged, right) in [(2, 3), (4, 5)] {
        world.not_ours(&blank(forged), Some(Phase::Active));
        assert!(world.index.is_news(&active) && !world.index.is_news(&active));
        world.ours(&AccessRequest { status: active.status.clone(), ..blank(right) });
    }
}

#[tokio::test]
async fn older_keys_are_counted_in_what_may_come_to_be() {
    let mut world = world();
    let pending = world.sealed(1, Phase::Pending);
    world.ours(&blank(1));
    assert_eq!(world.index.coming_with_another_key("k2"), 0);
    world.index.sends(&AccessRequest { status: pending.status, ..blank(1) });
    assert_eq!((world.index.coming_with_another_key("k2"), world.index.coming_with_another_key("k1")), (1, 0));
    world.ours(&AccessRequest { status: None, ..blank(2) });
    assert_eq!(world.index.coming_with_another_key("k2"), 0);
}

#[tokio::test]
async fn what_is_over_is_final_ours_and_was_so_for_a_while() {
    let world = world();
    let now = Timestamp::now();
    let ago = |minutes| Time(now - jiff::SignedDuration::from_mins(minutes));
    let over = |change: &dyn Fn(&mut AccessRequest)| {
        let mut request = world.sealed(1, Phase::Expired);
        let status = request.status.get_or_insert_default();
        let grant = json!({"startsAt": ago(90), "deadline": ago(60), "endedAt": ago(31), "targets": []});
        status.grant = serde_json::from_value(grant).expect("a grant");
        status.seal = None;
        status.seal = world.keys.seal("u1", status);
        change(&mut request);
        world.index.is_over(&request, now)
    };
    let sealed = |request: &mut AccessRequest, change: &dyn Fn(&mut AccessRequestStatus)| {
        let status = request.status.get_or_insert_default();
        change(status);
        status.seal = None;
        status.seal = world.keys.seal("u1", status);
    };
    assert!(over(&|_| {}));
    let ended = |status: &mut AccessRequestStatus, minutes| {
        status.grant.as_mut().expect("a grant").ended_at = Some(ago(minutes));
    };
    assert!(!over(&|request| sealed(request, &|status| ended(status, 29))), "it is looked at for a while");
    assert!(!over(&|request| sealed(request, &|status| status.phase = Some(Phase::Active))), "not final");
    assert!(!over(&|request| request.metadata.finalizers = Some(vec![FINALIZER.into()])), "something may be left");
    assert!(!over(&|request| ended(request.status.as_mut().expect("a status"), 32)), "not as it was sealed");
    assert!(!over(&|request| request.status.as_mut().expect("a status").seal = None), "not sealed");
    // What never had anything: since it was said.
    let denied = |minutes| {
        over(&|request| {
            sealed(request, &|status| {
                status.phase = Some(Phase::Denied);
                status.grant = None;
                let ready = json!([{"type": "Ready", "status": "False", "reason": "Denied", "message": "",
                    "lastTransitionTime": ago(minutes)}]);
                status.conditions = serde_json::from_value(ready).expect("conditions");
            });
        })
    };
    assert!(denied(31) && !denied(29));
}

#[tokio::test]
async fn what_was_live_and_is_gone_is_known_here_only() {
    let mut world = world();
    let active = world.sealed(1, Phase::Active);
    world.ours(&active);
    assert_eq!(world.index.live(), HashSet::from(["u1".to_owned()]));
    assert!(world.index.vanish("another").is_none());
    assert!(world.index.vanish("u1").is_some() && world.index.is_vanished("u1"));
    assert!(world.index.vanish("u1").is_none(), "once");
    let mut world = self::world();
    let over = world.sealed(1, Phase::Expired);
    world.ours(&over);
    assert!(world.index.live().is_empty() && world.index.vanish("u1").is_none());
}

#[tokio::test]
async fn an_old_status_of_what_is_over_is_not_believed_although_nothing_else_is_remembered() {
    let mut world = world();
    let (active, over) = (world.sealed(1, Phase::Active), world.sealed(2, Phase::Expired));
    world.ours(&over);
    world.index.let_go(&over);
    world.brings(&Event::Delete(over.clone()));
    world.index.forget_the_gone();
    let back = AccessRequest { status: active.status.clone(), ..blank(3) };
    world.not_ours(&back, None);
    world.not_ours(&AccessRequest { status: None, ..blank(4) }, None);
    world.ours(&AccessRequest { status: over.status.clone(), ..blank(5) });
    // One that was deleted, and is made anew, begins anew.
    world.index.vanish("u1");
    let mut world = self::world();
    world.index.let_go(&over);
    world.index.vanish("u1");
    world.ours(&blank(6));
}

#[tokio::test]
async fn what_is_live_and_not_shown_is_looked_for() {
    let mut world = world();
    let active = world.sealed(1, Phase::Active);
    world.ours(&active);
    assert!(world.index.not_shown().is_empty());
    world.brings(&Event::Delete(active));
    assert_eq!(world.index.not_shown().len(), 1);
    world.index.forget_the_gone();
    assert_eq!(world.index.not_shown().len(), 1, "it is kept until somebody has taken over what it gave");
    world.index.vanish("u1");
    assert!(world.index.not_shown().is_empty());
}

/// A request in this version that the operator wrote, about this user.
fn about(world: &World, version: u64, user: &str) -> AccessRequest {
    in_phase(world, version, user, Phase::Active)
}

fn in_phase(world: &World, version: u64, user: &str, phase: Phase) -> AccessRequest {
    let mut request = world.sealed(version, phase);
    let mut status = request.status.take().expect("a status");
    let subject = json!({"realm": "prod", "realmId": "r", "userId": user, "username": user, "url": "https://sso"});
    status.subject = Some(serde_json::from_value(subject).expect("a subject"));
    status.seal = world.keys.seal("u1", &status);
    request.status = Some(status);
    request
}

#[tokio::test]
async fn a_person_s_requests_are_found_by_what_is_stored_and_by_what_is_remembered() {
    let mut world = world();
    let of = |world: &World, user: &str| world.index.known_of(user).len();
    let alice = about(&world, 1, "alice");
    world.brings(&Event::Apply(alice.clone()));
    assert_eq!((of(&world, "alice"), of(&world, "bob")), (1, 0));
    // Somebody writes another name over it. It is about both: what was given to alice is remembered.
    let forged = about(&world, 2, "bob");
    let forged = unsealed(forged);
    world.brings(&Event::Apply(forged.clone()));
    assert_eq!((of(&world, "alice"), of(&world, "bob")), (1, 1));
    // Also after all came anew.
    for event in [Event::Init, Event::InitApply(forged.clone()), Event::InitDone] {
        world.brings(&event);
    }
    assert_eq!((of(&world, "alice"), of(&world, "bob")), (1, 1));
    // And what was written meanwhile is found before the watch shows it.
    world.brings(&Event::Init);
    world.index.sends(&AccessRequest { status: about(&world, 3, "carol").status, ..forged.clone() });
    world.index.put(about(&world, 3, "carol"));
    world.brings(&Event::InitApply(forged.clone()));
    assert_eq!(of(&world, "carol"), 1);
    world.brings(&Event::InitDone);
    assert_eq!(of(&world, "carol"), 1);
    world.brings(&Event::Delete(forged));
    assert_eq!(["alice", "bob", "carol"].map(|user| of(&world, user)), [0, 0, 0]);
}

#[tokio::test]
async fn what_is_not_stored_any_more_is_nobody_s() {
    let mut world = world();
    let alice = about(&world, 1, "alice");
    let of_alice = |world: &World| world.index.by_user.of("alice").len();
    world.brings(&Event::Apply(alice.clone()));
    assert_eq!(of_alice(&world), 1);
    // Nothing is remembered of it: nobody has looked at it.
    for event in [Event::Init, Event::InitDone] {
        world.brings(&event);
    }
    assert_eq!(of_alice(&world), 0);
    // An answer that comes after the watch has said that it is gone, while all comes anew and afterwards.
    world.brings(&Event::Init);
    world.index.put(in_phase(&world, 2, "alice", Phase::Expired));
    world.index.forget_the_gone();
    assert_eq!(of_alice(&world), 1);
    world.brings(&Event::InitDone);
    world.index.forget_the_gone();
    assert_eq!(of_alice(&world), 0);
    // What is live and not shown is remembered, and so is whose it is.
    world.index.put(alice);
    world.index.forget_the_gone();
    assert_eq!(of_alice(&world), 1);
}

#[tokio::test]
async fn what_is_let_go_while_it_is_listed_is_found_when_the_list_is_at_its_end() {
    let mut world = world();
    let alice = about(&world, 1, "alice");
    for event in [Event::Init, Event::InitApply(alice.clone()), Event::Delete(alice), Event::InitDone] {
        world.brings(&event);
    }
    assert_eq!(world.index.known_of("alice").len(), world.index.known().len());
}
