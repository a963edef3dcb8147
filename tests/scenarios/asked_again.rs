//! Between the approval and the start lies time, and everything can change: at the start all of it is asked again.

use futures::future::join_all;
use hallpass::api::Phase;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    keycloak_admin::{Admin, Group, Role, unique},
    people::Person,
    policy::Policy,
    request::Request,
    world::World,
};

/// A request that Bob has approved and that begins soon, and all that it rests on.
struct Agreed {
    team: Group,
    alice: Person,
    role: Role,
    policy: Policy,
    request: Request,
}

async fn agreed(w: &World) -> Agreed {
    let team = w.keycloak.group(None, &unique("team")).await;
    let alice = w.person("alice").await.in_group(&team).await;
    let bob = w.person("bob").await;
    let role = w.keycloak.realm_role("admin").await;
    let policy = w.policy("oncall").realm_role("admin", &role.name).requester_group(&team).stage("lead", 1, [&bob]);
    let policy = policy.ready().await;
    bob.signs_in().await;
    let start = Timestamp::now() + SignedDuration::from_secs(20);
    let ask = alice.asks(&policy).lasting("10m").with("notBefore", json!(start.to_string()));
    let request = ask.create().await.unwrap();
    bob.approves(&request, "lead").await.unwrap();
    request.says(Phase::Approved, "WaitingForStart").await;
    Agreed { team, alice, role, policy, request }
}

/// What changes while the request waits.
enum Change {
    Nothing,
    LeavesTheTeam,
    MadeAnewUnderTheSameName,
    ShorterMaximum,
    OtherNamespaces,
    Suspended,
    RoleDeleted,
    RoleLeadsToAdministration,
    GrantsChanged,
    OneMoreStage,
}

impl Change {
    async fn happens(&self, keycloak: &Admin, agreed: &Agreed) {
        let Agreed { team, alice, role, policy, .. } = agreed;
        match self {
            Self::Nothing => {}
            Self::LeavesTheTeam => keycloak.leave(&alice.user, team).await,
            Self::MadeAnewUnderTheSameName => {
                keycloak.delete_user(&alice.user).await;
                let anew = keycloak.user_named(&alice.user.username).await;
                keycloak.join(&anew, team).await;
            }
            Self::ShorterMaximum => policy.change(json!({"duration": {"max": "5m"}})).await,
            Self::OtherNamespaces => policy.change(json!({"namespaces": ["elsewhere"]})).await,
            Self::Suspended => policy.change(json!({"suspended": true})).await,
            Self::RoleDeleted => keycloak.delete_role(role).await,
            Self::RoleLeadsToAdministration => {
                let admin = keycloak.find_client_role(keycloak.management_client(), "realm-admin").await;
                keycloak.compose(role, &[&admin]).await;
            }
            Self::GrantsChanged => {
                policy.change(json!({"grants": [{"name": "admin", "realmRole": "offline_access"}]})).await;
            }
            Self::OneMoreStage => {
                let approver = json!([{"kind": "User", "name": "oidc:carol"}]);
                let stages = [
                    json!({"name": "lead", "required": 1, "approvers": approver}),
                    json!({"name": "more", "approvers": [{"kind": "Group", "name": "system:authenticated"}]}),
                ];
                policy.change(json!({"approval": {"stages": stages}})).await;
            }
        }
    }
}

#[tokio::test]
async fn at_the_start_everything_is_asked_again() {
    use Change as C;
    let w = World::new().await;
    let cases = [
        (C::Nothing, Phase::Active, "the access is in place"),
        (C::LeavesTheTeam, Phase::Rejected, "may not ask under policy"),
        (C::MadeAnewUnderTheSameName, Phase::Rejected, "leads to another Keycloak user than when this was asked"),
        (C::ShorterMaximum, Phase::Rejected, "spec.duration 10m is longer than the 5m"),
        (C::OtherNamespaces, Phase::Rejected, "serves the namespaces elsewhere, not"),
        (C::Suspended, Phase::Rejected, "is suspended"),
        (C::RoleDeleted, Phase::Rejected, "there is no realm role"),
        (C::RoleLeadsToAdministration, Phase::Rejected, "leads to Keycloak's administration"),
        (C::GrantsChanged, Phase::Pending, "so earlier votes no longer count"),
        (C::OneMoreStage, Phase::Pending, "so earlier votes no longer count"),
    ];
    join_all(cases.into_iter().map(async |(change, phase, words)| {
        // given
        let agreed = agreed(&w).await;
        // when
        change.happens(&w.keycloak, &agreed).await;
        // then
        let Agreed { alice, role, request, .. } = &agreed;
        let status = request
            .until(&format!("{phase:?}: {words}"), |status| {
                status.phase == Some(phase) && crate::request::condition(status, "Ready").message.contains(words)
            })
            .await;
        let given = phase == Phase::Active;
        assert_eq!(status.grant.is_some(), given, "{words}");
        if !matches!(words, "leads to another Keycloak user than when this was asked" | "there is no realm role") {
            assert_eq!(w.keycloak.has(&alice.user, role).await, given, "{words}");
        }
    }))
    .await;
    w.clean_up().await;
}
