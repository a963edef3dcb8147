//! Access is given: to whom, when, and what of it.

use hallpass::api::Phase;

use crate::world::World;

#[tokio::test]
async fn what_bob_approves_alice_has_until_the_deadline() {
    // given
    let w = World::new().await;
    let (alice, bob) = (w.person("alice").await, w.person("bob").await);
    let role = w.keycloak.realm_role("admin").await;
    let policy =
        w.policy("oncall").realm_role("admin", &role.name).requester(&alice).stage("lead", 1, [&bob]).ready().await;
    // when
    let request = alice.asks(&policy).lasting("6s").create().await.unwrap();
    request.says(Phase::Pending, "WaitingForVotes").await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    bob.approves(&request, "lead").await.unwrap();
    // then
    request.reaches(Phase::Active).await;
    assert!(w.keycloak.has(&alice.user, &role).await);
    assert!(alice.has_role_in_token(&role.name).await);
    request.reaches(Phase::Expired).await;
    assert!(!w.keycloak.has(&alice.user, &role).await);
    assert!(!alice.has_role_in_token(&role.name).await);
    w.clean_up().await;
}
