//! What a policy asks of a request. Every broken rule is named, not the first one.

use super::{Lookup, People, Person, Policy, Request, delegation, duration, policy};

/// What is known about a request under its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All rules are kept; this is the subject.
    Kept(Person),
    /// These are broken.
    Broken(Vec<String>),
    /// Keycloak could not be asked; what is known so far is not broken.
    Unknown(String),
}

/// Judges a request. `people` is what Keycloak says about who asks, and about who submitted it.
pub fn judge(request: &Request, policy: &Policy, people: &People) -> Verdict {
    let mut broken = request.broken.clone();
    broken.extend(of_the_spec(request, policy));
    broken.extend(delegation::broken(request, policy));
    let submitter = request.submitter().and_then(|by| people.get(by));
    let person = match people.get(&request.requester) {
        Some(Lookup::Person(person)) => {
            if !policy.requesters.iter().any(|subject| subject.includes(&request.requester, person)) {
                broken.push(format!(
                    "{} may not ask under policy {}: it serves {}",
                    request.requester,
                    policy.name,
                    if policy.requesters.is_empty() { "nobody".into() } else { policy::list(&policy.requesters) }
                ));
            }
            match delegation::own_pre_approval(request, person, submitter) {
                Ok(false) => Ok(person),
                Ok(true) => {
                    broken.push("spec.preApproved: the submitter is the requester's own Keycloak user".to_owned());
                    Ok(person)
                }
                Err(why) => Err(why),
            }
        }
        Some(Lookup::Nobody(why)) => {
            broken.push(format!("spec.requester {:?}: {why}", request.requester));
            Err(String::new())
        }
        Some(Lookup::Unknown(why)) => Err(why.clone()),
        None => Err("nobody asked Keycloak about the requester".into()),
    };
    match person {
        _ if !broken.is_empty() => Verdict::Broken(broken),
        Ok(person) => Verdict::Kept(person.clone()),
        Err(why) => Verdict::Unknown(why),
    }
}

/// The rules that need nothing but the two specs.
fn of_the_spec(request: &Request, policy: &Policy) -> Vec<String> {
    let mut broken = Vec::new();
    if policy.suspended {
        broken.push(format!("policy {} is suspended", policy.name));
    }
    if !policy.namespaces.is_empty() && !policy.namespaces.contains(&request.namespace) {
        let namespaces: Vec<&str> = policy.namespaces.iter().map(String::as_str).collect();
        broken.push(format!(
            "policy {} serves the namespaces {}, not {}",
            policy.name,
            namespaces.join(", "),
            request.namespace
        ));
    }
    let known: Vec<&str> = policy.grants.iter().map(|grant| grant.name.as_str()).collect();
    let unknown: Vec<&str> = request.grants.iter().map(String::as_str).filter(|name| !known.contains(name)).collect();
    if !unknown.is_empty() {
        let message =
            format!("policy {} has no grant {}; it has {}", policy.name, unknown.join(", "), known.join(", "));
        broken.push(message);
    }
    if let Some(wanted) = request.duration.filter(|wanted| *wanted > policy.max_duration) {
        broken.push(format!(
            "spec.duration {} is longer than the {} that policy {} allows",
            duration::format(wanted),
            duration::format(policy.max_duration),
            policy.name
        ));
    }
    broken.extend(of_the_reason(request, policy));
    broken
}

fn of_the_reason(request: &Request, policy: &Policy) -> Option<String> {
    let hint = |before: &str, after: &str| {
        policy.reason.hint.as_ref().map(|hint| format!("{before}{hint}{after}")).unwrap_or_default()
    };
    if request.reason.is_empty() {
        return policy.reason.required.then(|| format!("policy {} wants spec.reason{}", policy.name, hint(": ", "")));
    }
    let pattern = policy.reason.pattern.as_ref().filter(|pattern| !pattern.is_match(&request.reason))?;
    Some(format!("spec.reason {:?} must match {pattern}{}", request.reason, hint(" (", ")")))
}
