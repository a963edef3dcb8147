//! The rules of the protocol, each with a switch that a test turns off to plant a fault. Those of the domain are turned off
//! by changing what `decide` sees or says, those of the servers and of the controller in the model's own glue.

/// What is done as it should be around the domain.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct Rules {
    pub domain: Domain,
    /// A status is written with the resourceVersion that was seen.
    pub resource_version: bool,
    /// The CRD's rules: final is final, no later deadline, `preExisting` never becomes true, no target is taken out.
    pub crd: bool,
    /// What was acknowledged is known before the watch shows it.
    pub own_writes: bool,
    /// A replica that has lost the lease writes no more to Keycloak.
    pub lease: bool,
    /// Who takes over lists the requests, and does not go by what its watch showed so far.
    pub fresh_list: bool,
    /// The status is written before the effects: an intent before its mapping, Revoking before its removal.
    pub intent_first: bool,
    pub revoking_first: bool,
    /// What is due is removed before its status says so, which then says that it is gone.
    pub due_at_once: bool,
    /// But only if a write of its status was acknowledged since this process leads.
    pub due_once_fenced: bool,
    /// Before anything is done in Keycloak every open request has an acknowledged write.
    pub fence: bool,
    /// Who takes over takes what the one before may have sent to Keycloak for unsettled.
    pub inherits_unsettled: bool,
    /// A status that an earlier leader had on its way is not taken for forged.
    pub knows_late_statuses: bool,
    /// A live request that disappears is remembered until what it gave is gone.
    pub tombstones: bool,
    /// Such a one is not waited for: there is nothing that could be fenced.
    pub fences_no_vanished: bool,
    /// What came of a write is judged by what was on its way when that was sent, not by what is later.
    pub judges_as_sent: bool,
    /// A 404 is looked into, and proves nothing by itself.
    pub not_found_is_no_proof: bool,
}

/// What `decide` does as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct Domain {
    /// The finalizer is on before anything is given.
    pub finalizer_first: bool,
    /// What the person had before is never mapped by us.
    pub confirms_only: bool,
    /// What is there because of another request is not the person's own.
    pub inherits_ours: bool,
    /// What another request found there is not ours.
    pub inherits_only_ours: bool,
    /// What is there for no other request is the person's own.
    pub keeps_theirs: bool,
    /// A holder that had it before becomes its owner when the last owner ends.
    pub hands_over: bool,
    /// An activation waits for a Revoking of the same target.
    pub waits_for_revoking: bool,
    /// A holder is neither due nor ended.
    pub strict_holders: bool,
    /// An activation that goes on keeps its deadline.
    pub keeps_deadline: bool,
    /// What another request holds is not removed.
    pub heeds_holders: bool,
    /// What was meant to be mapped is removed, too: nobody knows whether it arrived.
    pub removes_intents: bool,
    /// Nothing is settled while a write without an answer may still arrive.
    pub settles: bool,
    /// Nor is what another request holds.
    pub settles_at_hand_over: bool,
}

/// All of them.
pub const ALL: Rules = Rules {
    domain: DOMAIN,
    resource_version: true,
    crd: true,
    own_writes: true,
    lease: true,
    fresh_list: true,
    intent_first: true,
    revoking_first: true,
    due_at_once: true,
    due_once_fenced: true,
    fence: true,
    inherits_unsettled: true,
    knows_late_statuses: true,
    tombstones: true,
    fences_no_vanished: true,
    judges_as_sent: true,
    not_found_is_no_proof: true,
};

/// All of the domain.
pub const DOMAIN: Domain = Domain {
    finalizer_first: true,
    confirms_only: true,
    inherits_ours: true,
    inherits_only_ours: true,
    keeps_theirs: true,
    hands_over: true,
    waits_for_revoking: true,
    strict_holders: true,
    keeps_deadline: true,
    heeds_holders: true,
    removes_intents: true,
    settles: true,
    settles_at_hand_over: true,
};
