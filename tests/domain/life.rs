//! What holds in every phase.

use std::sync::OnceLock;

use hallpass::{
    api::{
        EndReason::{Ended, Expired},
        Phase::{self, Activating, Active, Approved, Denied, Pending, Rejected, Revoked, Revoking, TimedOut},
    },
    domain::{
        Next, Outcome,
        OutcomeResult::{self, Mapped, Missing, Removed},
        needs,
    },
};

use jiff::Timestamp;

use super::world::*;

const FINAL: [Phase; 5] = [Phase::Expired, Revoked, Denied, TimedOut, Rejected];

/// Where a phase leads to.
fn leads_to(phase: Option<Phase>) -> &'static [Phase] {
    match phase {
        None => &[Pending, Approved, Denied, TimedOut, Rejected, Revoked],
        Some(Pending) => &[Approved, Activating, Denied, TimedOut, Rejected, Revoked],
        // Denied: by a vote that could not be counted before.
        Some(Approved) => &[Activating, Pending, TimedOut, Rejected, Revoked, Denied],
        // Expired: what is due can be gone before anybody has to say that it is being taken away.
        Some(Activating) => &[Active, Revoking, Phase::Expired],
        Some(Active) => &[Revoking, Phase::Expired],
        Some(Revoking) => &[Phase::Expired, Revoked],
        Some(Phase::Expired | Revoked | Denied | TimedOut | Rejected) => &[],
    }
}

/// Whether a request may go from one phase to another.
pub fn may_go(from: Option<Phase>, to: Option<Phase>) -> bool {
    from == to || to.is_some_and(|to| leads_to(from).contains(&to))
}

/// Many requests in every phase.
fn requests() -> Vec<RequestBuilder> {
    let policy = policy();
    let lives = vec![
        request("fix"),
        request("fix").pending(&policy),
        request("fix").pending(&policy).voted(BOB, "lead"),
        request("fix").pending(&policy).denied(BOB, "lead"),
        // Killed before what was agreed could be recorded.
        request("fix").pending(&policy).voted(BOB, "lead").with_finalizer(),
        request("fix").pending(&policy).denied(BOB, "lead").with_finalizer(),
        request("fix").approved_by(BOB, &policy),
        request("fix").approved_by(BOB, &policy).with_finalizer(),
        request("fix").not_before(3000).approved_by(BOB, &policy),
        request("fix").activating(&[ours("admin"), theirs("debug")]),
        request("fix").active(&[ours("admin"), theirs("debug")]),
        request("fix").revoking(Ended, &[ours("admin"), theirs("debug")]),
        request("fix").revoking(Expired, &[removed(ours("admin")), theirs("debug")]),
        request("fix").activating(&[ours("admin")]).in_phase(Revoking),
        request("fix").in_phase(Activating),
        request("fix").in_phase(Active),
        request("fix").in_phase(Revoking),
    ];
    let over = FINAL.map(|phase| request("fix").active(&[ours("admin")]).in_phase(phase));
    let all = lives.into_iter().chain(over);
    all.flat_map(|it| [it.clone(), it.clone().deleted(), it.clone().ended(ALICE), it.ended(BOB).not_after(3700)])
        .collect()
}

/// Many worlds.
fn worlds() -> Vec<World> {
    let policies = [
        policy(),
        policy().automatic(),
        policy().suspended(),
        policy().made_anew(),
        policy().grant("more"),
        policy().at_most("1m"),
    ];
    let fair = policies.iter().map(world);
    let odd = [
        world(&policy()).without_policy(),
        world(&policy()).not_ready(&policy()),
        world(&policy()).unguarded(),
        world(&policy()).unknown(ALICE).unknown(BOB),
        world(&policy()).nobody(ALICE),
        world(&policy()).nobody(BOB),
        world(&policy()).keycloak_has("admin"),
        world(&policy()).outcome("admin", Mapped).outcome("debug", Mapped),
        world(&policy()).outcome("admin", Removed),
        world(&policy()).outcome("debug", Missing),
        world(&policy()).fails("admin").fails("debug"),
        world(&policy()).beside(&request("other").active(&[ours("admin")])),
        world(&policy()).beside(&request("other").active(&[theirs("admin")])),
        world(&policy()).beside(&request("other").revoking(Ended, &[ours("admin")])),
    ];
    fair.chain(odd).flat_map(|world| [0, 60, 3599, 3600].map(|seconds| world.clone().at(seconds))).collect()
}

/// Every request in every world; each decision is checked for what [`World::decide`] checks.
fn everything(mut check: impl FnMut(Timestamp, &Answer)) {
    static ANSWERS: OnceLock<Vec<(Timestamp, Answer)>> = OnceLock::new();
    let all = ANSWERS.get_or_init(|| {
        let worlds = worlds();
        requests().iter().flat_map(|request| worlds.iter().map(|world| (world.now, world.decide(request)))).collect()
    });
    for (now, answer) in all {
        check(*now, answer);
    }
}

#[test]
fn phases_lead_where_the_design_says_and_nowhere_else() {
    let mut seen = std::collections::BTreeSet::new();
    everything(|_, answer| {
        let (from, to) = (answer.before.phase(), answer.status().phase);
        // A status that cannot be: live, and nothing granted.
        let empty = answer.before.status.grant.is_none() && matches!(from, Some(Activating | Active | Revoking));
        assert!(may_go(from, to) || (empty && to == Some(Revoked)), "{from:?} to {to:?}: {}", answer.message());
        if !empty {
            seen.extend(to.filter(|to| from != Some(*to)).map(|to| (from, to)));
        }
    });
    for from in [None].into_iter().chain(Phase::ALL.map(Some)) {
        for to in leads_to(from).iter().filter(|to| !(from == Some(Approved) && matches!(to, Denied)) && from.is_some())
        {
            assert!(seen.contains(&(from, *to)), "{from:?} to {to:?} never happened here");
        }
    }
}

#[test]
fn final_stays_final_and_lets_go() {
    everything(|_, answer| {
        if answer.before.phase().is_some_and(Phase::is_final) {
            answer.writes_nothing().does(&["remove finalizer"]).next(Next::OnChange);
        }
    });
    world(&policy()).decide(&request("fix").in_phase(Rejected)).writes_nothing().does(&[]);
}

#[test]
fn the_finalizer_goes_with_a_final_status_and_comes_before_the_intent() {
    everything(|_, answer| {
        let phase = answer.status().phase;
        let goes = answer.decision.effects.iter().any(|effect| words(effect) == "remove finalizer");
        let is_over = phase.is_some_and(Phase::is_final);
        assert_eq!(goes, is_over && answer.before.has_finalizer, "{phase:?}");
        if matches!(answer.before.phase(), Some(Pending | Approved)) && phase == Some(Activating) {
            let first = answer.decision.effects.first().map(words);
            assert!(answer.before.has_finalizer || first.as_deref() == Some("add finalizer"), "{first:?}");
        }
    });
}

#[test]
fn effects_follow_what_is_recorded() {
    everything(|_, answer| {
        for effect in answer.decision.effects.iter().map(words) {
            let (what, name) = effect.split_once(' ').unwrap_or_default();
            let target = answer.targets().iter().find(|target| target.name == name);
            match what {
                "map" => assert!(answer.status().phase == Some(Activating) && target.is_some_and(|t| !t.pre_existing)),
                "confirm" => {
                    assert!(answer.status().phase == Some(Activating) && target.is_some_and(|t| t.pre_existing));
                }
                "unmap" => assert!(answer.status().phase == Some(Revoking) && target.is_some_and(|t| !t.pre_existing)),
                _ => {}
            }
        }
    });
}

#[test]
fn nothing_is_live_past_its_deadline() {
    everything(|now, answer| {
        let live = matches!(answer.status().phase, Some(Activating | Active));
        assert!(!live || answer.after().deadline().is_some_and(|deadline| deadline > now), "{}", answer.message());
    });
}

#[test]
fn nobody_looks_at_once_or_never_at_what_is_not_over() {
    everything(|now, answer| match answer.decision.next {
        Next::At(time) | Next::Retry { until: Some(time) } => assert!(time > now, "{}", answer.message()),
        Next::OnChange => assert!(answer.status().phase.is_some_and(Phase::is_final), "{}", answer.message()),
        Next::Now => assert!(
            answer.decision.status.is_some() || !answer.decision.effects.is_empty(),
            "would look at once for ever: {}",
            answer.message()
        ),
        Next::Retry { until: None } => {}
    });
}

#[test]
fn conditions_say_what_the_phase_says() {
    everything(|_, answer| {
        let status = answer.status();
        let (Some(phase), Some(_)) = (status.phase, &answer.decision.status) else { return };
        if answer.before.phase() == Some(phase) {
            return;
        }
        let on = |type_: &str| status.conditions.iter().any(|c| c.type_ == type_ && c.status == "True");
        assert_eq!(on("Granted"), phase == Active);
        assert_eq!(on("Ready"), matches!(phase, Active | Phase::Expired | Revoked));
        assert_eq!(on("Stalled"), matches!(phase, Denied | TimedOut | Rejected));
        assert!(!(on("Reconciling") && on("Stalled")));
    });
}

#[test]
fn what_ends_needs_nothing() {
    for over in requests() {
        let request = over.read();
        let ends = request.deleting
            || request.is_due(at(4000))
            || request.phase().is_some_and(|p| p.is_final() || p == Revoking);
        assert!(!ends || needs(&request, &[], at(4000), Some("another")) == hallpass::domain::Needs::default());
    }
}

#[test]
fn what_is_in_place_asks_about_the_admission_policies_only_if_it_is_to_end_or_has_not_taken_on_their_epoch() {
    let nothing = hallpass::domain::Needs::default();
    let only_the_guard = hallpass::domain::Needs { guard: true, ..Default::default() };
    let active = request("fix").active(&[ours("admin")]).guarded_by("e1");
    let ending = active.clone().annotated("end.hallpass.dev/now", BOB).read();
    let active = active.read();
    assert_eq!(needs(&active, &[], at(0), Some("e1")), nothing);
    assert_eq!(needs(&active, &[], at(0), None), nothing, "whoever learns of an epoch has it looked at");
    assert_eq!(needs(&active, &[], at(0), Some("e2")), only_the_guard);
    assert!(needs(&ending, &[], at(0), Some("e1")).guard);
    let activating = request("fix").activating(&[ours("admin"), ours("debug")]).guarded_by("e1").read();
    let came = |target: &str, result| Outcome { target: target.into(), result, travelling: None };
    let mapped = |target| came(target, OutcomeResult::Mapped);
    for outcomes in
        [vec![], vec![mapped("admin")], vec![mapped("admin"), came("debug", OutcomeResult::Failed("no".into()))]]
    {
        assert_eq!(needs(&activating, &outcomes, at(0), Some("e1")), only_the_guard, "it is given more: {outcomes:?}");
    }
    assert_eq!(needs(&activating, &[mapped("admin"), mapped("debug")], at(0), Some("e1")), nothing);
}
