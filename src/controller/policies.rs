//! Whether a policy can be used: its Ready condition, and what requests need to know of it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api,
    core::DeserializeGuard,
    runtime::{controller::Action, reflector::ObjectRef},
};
use tokio::time::Instant;

use super::{
    Context,
    approvers::Approvers,
    error::{ApiError, Error, limited},
    people::Cache,
    realm::{self, GroupIds, Realm},
    report,
};
use crate::{
    api::AccessPolicy,
    domain::{Policy, PolicyView, Problem, ProblemReason, Rosters, conditions::Reason},
};

/// For how long what Keycloak said about a policy is good enough for a request that waits. At activation it is asked again.
const FRESH: Duration = Duration::from_mins(1);
/// A policy that stands is looked at again after this long: roles can be deleted and renamed behind it.
const RECHECK: Duration = Duration::from_mins(5);
/// A policy that does not stand is looked at again after this long: what it misses can come.
const RETRY: Duration = Duration::from_secs(15);

/// What Keycloak said about one generation of a policy.
#[derive(Clone)]
pub struct Verdict {
    /// UID of the policy.
    pub uid: String,
    generation: i64,
    at: Instant,
    groups: Result<GroupIds, Vec<Problem>>,
    /// What is against its grants and required actions.
    grants: Vec<Problem>,
    /// Nothing if nobody has asked yet, or without the groups: requests do not need it.
    approvers: Option<Approvers>,
}

impl Verdict {
    /// How long until Keycloak should be asked again.
    fn good_for(&self) -> Duration {
        let asked = match &self.approvers {
            Some(approvers) => Some(approvers.at.min(self.at)),
            None => self.groups.is_err().then_some(self.at),
        };
        let stands = self.groups.is_ok() && self.grants.is_empty() && self.useless().is_none();
        let life = if stands { RECHECK } else { RETRY };
        asked.map_or(Duration::ZERO, |asked| life.saturating_sub(asked.elapsed()))
    }

    /// Why nobody could use the policy, if so.
    fn useless(&self) -> Option<&Problem> {
        self.approvers.as_ref()?.problem.as_ref()
    }

    /// Whether Keycloak could not be asked.
    fn could_not_ask(&self) -> bool {
        let groups = self.groups.as_ref().err().into_iter().flatten();
        groups
            .chain(&self.grants)
            .chain(self.useless())
            .any(|problem| problem.reason == ProblemReason::KeycloakUnavailable)
    }

    fn is_about(&self, policy: &Policy) -> bool {
        self.uid == policy.uid && self.generation == policy.generation
    }
}

/// Whether a policy stands, and for how long that can be relied on.
struct Examined {
    problems: Vec<Problem>,
    /// As far as they were found.
    groups: GroupIds,
    rosters: Option<Arc<Rosters>>,
    good_for: Duration,
}

/// A policy as a request sees it.
pub struct Seen {
    /// Whether it can be used.
    pub view: PolicyView,
    /// The ids of its groups, as far as they were found.
    pub groups: GroupIds,
    /// Who could approve, as its condition was last told.
    pub rosters: Option<Arc<Rosters>>,
}

/// How much has to be known about a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Whether it is there and not suspended; from the cache.
    Existence,
    /// Who may ask and vote: the policy from the API server, its groups as they were a minute ago at most.
    Membership,
    /// The same where something may be given at once: its groups are asked again now.
    MembershipNow,
    /// Everything, asked again now.
    Everything,
}

/// What Keycloak is to be asked about a policy.
#[derive(Clone, Copy)]
enum Questions {
    /// Groups and grants.
    ForRequests,
    /// Also who could approve.
    All,
}

impl Questions {
    /// Whether what is known is too old for whoever asks.
    fn are_due(self, known: &Verdict) -> bool {
        match self {
            Self::ForRequests => known.at.elapsed() >= FRESH,
            Self::All => known.good_for().is_zero(),
        }
    }
}

/// A policy that was read, or what is known of one that this version cannot read.
type Readable = Result<Arc<AccessPolicy>, PolicyView>;
/// Reads of policies, by name; nothing for one that there is not.
pub type Reads = Cache<Option<Readable>, Arc<ApiError>>;
/// Answers of so many are kept. Who asks later asks anew.
pub const READS: usize = 64;

impl Context {
    /// Looks at the policy of this name. What has to be asked of Keycloak now was asked since `not_before`.
    pub async fn see_policy(&self, name: &str, depth: Depth, not_before: Instant) -> Result<Seen, Error> {
        let known = |view| Ok(Seen { view, groups: GroupIds::new(), rosters: None });
        let Some(policy) = self.read_policy(name, depth).await? else { return known(PolicyView::Absent) };
        let policy = match policy {
            Ok(policy) => policy,
            Err(view) => return known(view),
        };
        let (uid, suspended) = (policy.metadata.uid.clone().unwrap_or_default(), policy.spec.suspended);
        let parsed = match Policy::parse(&policy) {
            Ok(parsed) => Arc::new(parsed),
            Err(problems) => {
                return known(PolicyView::NotReady { uid, suspended, why: words(&problems), policy: None });
            }
        };
        let (problems, groups, rosters) = match depth {
            Depth::Existence => (Vec::new(), GroupIds::new(), None),
            Depth::Membership => {
                let examined = self.examine(&parsed, Questions::ForRequests, not_before).await;
                (examined.problems, examined.groups, examined.rosters)
            }
            Depth::MembershipNow => {
                let now = async {
                    let realm = self.realm_of(&parsed).map_err(|problem| vec![problem])?;
                    Ok((realm.groups(&parsed, not_before).await?, realm.may_not_manage(&parsed)))
                };
                let examined = self.examine(&parsed, Questions::ForRequests, not_before);
                let (Examined { mut problems, rosters, .. }, now) = tokio::join!(examined, now);
                let groups = match now {
                    Ok((groups, may_not_manage)) => {
                        problems.extend(may_not_manage.filter(|problem| !problems.contains(problem)));
                        groups
                    }
                    Err(missing) => {
                        problems = missing;
                        GroupIds::new()
                    }
                };
                (problems, groups, rosters)
            }
            // The grants are asked for by whoever activates: only those that are wanted.
            Depth::Everything => match self.realm_of(&parsed) {
                Ok(realm) => match realm.groups(&parsed, not_before).await {
                    Ok(groups) => (realm.may_not_manage(&parsed).into_iter().collect(), groups, None),
                    Err(problems) => (problems, GroupIds::new(), None),
                },
                Err(problem) => (vec![problem], GroupIds::new(), None),
            },
        };
        let view = if problems.is_empty() {
            PolicyView::Ready(parsed)
        } else {
            PolicyView::NotReady { uid, suspended, why: words(&problems), policy: Some(parsed) }
        };
        Ok(Seen { view, groups, rosters })
    }

    /// The policy; from the API server whenever something may be given, or when the cache has none.
    pub async fn read_policy(&self, name: &str, depth: Depth) -> Result<Option<Readable>, Error> {
        if depth == Depth::Existence
            && let Some(policy) = self.policies.get(&ObjectRef::new(name))
        {
            return Ok(Some(Ok(policy)));
        }
        // Many requests have one policy.
        let read = self.policy_reads.get(name, Instant::now(), || async {
            let api: Api<DeserializeGuard<AccessPolicy>> = Api::all(self.client.clone());
            let read = limited(api.get_opt(name)).await.map_err(Arc::new)?;
            Ok(read.map(|DeserializeGuard(policy)| match policy {
                Ok(policy) => Ok(Arc::new(policy)),
                Err(invalid) => Err(PolicyView::NotReady {
                    uid: invalid.metadata.uid.unwrap_or_default(),
                    suspended: false,
                    why: format!("this version cannot read it: {}", invalid.error),
                    policy: None,
                }),
            }))
        });
        read.await.map_err(|source| Error::ReadPolicy { name: name.to_owned(), source })
    }

    /// The realm of a policy.
    pub fn realm_of(&self, policy: &Policy) -> Result<&Realm, Problem> {
        self.realms.get(&policy.realm).ok_or_else(|| {
            let known: Vec<&str> = self.realms.keys().map(String::as_str).collect();
            let message = format!(
                "spec.realm {:?} is not in the operator's configuration; it has {}",
                policy.realm,
                known.join(", ")
            );
            Problem::new(ProblemReason::RealmNotFound, message)
        })
    }

    /// What is known about a policy, asked again, since `not_before`, where that is too old.
    async fn examine(&self, policy: &Policy, questions: Questions, not_before: Instant) -> Examined {
        let known = self.verdicts().get(&policy.name).cloned().filter(|known| known.is_about(policy));
        let verdict = match known.filter(|known| !questions.are_due(known)) {
            Some(known) => known,
            None => self.remember(policy, questions, self.ask_about(policy, questions, not_before).await),
        };
        let good_for = verdict.good_for();
        let useless = verdict.useless().cloned();
        let Verdict { groups, grants: mut problems, approvers, .. } = verdict;
        let groups = groups.unwrap_or_else(|missing| {
            problems.extend(missing);
            GroupIds::new()
        });
        problems.extend(useless);
        // Other policies change without this one: what follows from them is never remembered.
        problems.extend(self.realm_of(policy).map(|realm| self.make_approvers(policy, realm)).unwrap_or_default());
        problems.dedup();
        Examined { problems, groups, rosters: approvers.and_then(|approvers| approvers.rosters), good_for }
    }

    /// What Keycloak says since `not_before` about what a policy names.
    async fn ask_about(&self, policy: &Policy, questions: Questions, not_before: Instant) -> Verdict {
        let (groups, grants, approvers) = match self.realm_of(policy) {
            Ok(realm) => {
                let people = async {
                    let groups = realm.groups(policy, not_before).await;
                    let approvers = match (&groups, questions) {
                        (Ok(groups), Questions::All) => Some(realm.approvers(policy, groups).await),
                        (Err(_), Questions::All) | (_, Questions::ForRequests) => None,
                    };
                    (groups, approvers)
                };
                let ((groups, approvers), grants, actions) = tokio::join!(
                    people,
                    realm.targets(policy, &policy.grants, not_before),
                    realm.required_actions(policy)
                );
                let mut grants = grants.err().unwrap_or_default();
                grants.extend(actions.err());
                grants.extend(realm.may_not_manage(policy));
                (groups, grants, approvers)
            }
            Err(problem) => (Err(vec![problem]), Vec::new(), None),
        };
        let (uid, generation, at) = (policy.uid.clone(), policy.generation, Instant::now());
        let approvers = approvers.map(|approvers| Approvers { at, ..approvers });
        Verdict { uid, generation, at, groups, grants, approvers }
    }

    /// Keeps a verdict, with what was known about the approvers if that was not asked. Requests say who is missing: if
    /// that is news, they are looked at again.
    fn remember(&self, policy: &Policy, questions: Questions, mut verdict: Verdict) -> Verdict {
        let mut verdicts = self.verdicts();
        let before = verdicts.get(&policy.name).filter(|known| known.is_about(policy));
        let before = before.and_then(|known| known.approvers.clone());
        match questions {
            Questions::ForRequests => verdict.approvers.clone_from(&before),
            Questions::All => {}
        }
        let rosters =
            |approvers: &Option<Approvers>| approvers.as_ref().and_then(|approvers| approvers.rosters.clone());
        let news = rosters(&verdict.approvers) != rosters(&before);
        verdicts.insert(policy.name.clone(), verdict.clone());
        drop(verdicts);
        if news {
            self.wake_who_waits_under(&policy.name);
        }
        verdict
    }

    /// Forgets of all policies what Keycloak could not be asked.
    pub fn forget_what_could_not_be_asked(&self) {
        self.verdicts().retain(|_, verdict| !verdict.could_not_ask());
    }

    /// Grants of a policy whose holder would be an approver somewhere.
    pub fn make_approvers(&self, policy: &Policy, realm: &Realm) -> Vec<Problem> {
        let all = self.policies.state();
        let others = all.iter().filter_map(|other| Policy::parse(other).ok()).filter_map(|other| {
            // One realm of Keycloak can be configured under several names, each with a prefix of its own.
            let theirs =
                self.realms.get(&other.realm).filter(|theirs| theirs.config.place() == realm.config.place())?;
            Some((theirs.config.identity.group_prefix.clone(), other))
        });
        let own = (realm.config.identity.group_prefix.clone(), policy.clone());
        realm::make_approvers(policy, &others.chain([own]).collect::<Vec<_>>())
    }
}

/// Says in a policy's Ready condition whether requests can be granted under it.
pub async fn reconcile(policy: Arc<AccessPolicy>, context: Arc<Context>) -> Result<Action, Error> {
    let (outcome, again) = match Policy::parse(&policy) {
        Err(problems) => (Err(problems), None),
        Ok(parsed) => {
            let examined = context.examine(&parsed, Questions::All, Instant::now()).await;
            let outcome = if examined.problems.is_empty() { Ok(parsed.suspended) } else { Err(examined.problems) };
            (outcome, Some(examined.good_for))
        }
    };
    let (ready, reason) = match &outcome {
        Ok(false) => (true, Reason::new("Ready", "requests can be granted")),
        Ok(true) => (false, Reason::new("Suspended", "spec.suspended is true: nothing is granted")),
        Err(problems) => (false, Reason::new(worst(problems), words(problems))),
    };
    let least = context.realms.get(&policy.spec.realm).and_then(|realm| context.privilege(realm));
    report::policy(&context, &policy, (ready, &reason), least.as_ref(), Timestamp::now()).await?;
    // What is wrong in itself stays so until somebody edits it.
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

/// Problems in one sentence.
pub fn words(problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ")
}

/// One word for all problems: what somebody has to mend comes before what may pass by itself.
fn worst(problems: &[Problem]) -> &'static str {
    problems.iter().map(|problem| problem.reason).min().map_or("Invalid", ProblemReason::as_str)
}
