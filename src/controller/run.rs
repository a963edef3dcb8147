//! Wires the watches to the reconciles, and keeps them running until the process is told to stop.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, TryStreamExt, channel, future, stream};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ObjectMeta,
    runtime::{
        WatchStreamExt, applier,
        controller::{Action, Config, Error as ControllerError},
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc, watch};

use super::{
    Context, Differences, DueFirst, Error, Index, Listed, Locks, Realm, Record, Settling, lenient::Lenient, policies,
    reach, reconcile, vanished,
};
use crate::{
    api::{AccessPolicy, AccessRequest},
    config::Release,
    domain::Request,
    guard::{Guard, Keyring},
    leader::{Leadership, Takeover},
    metrics::Metrics,
};

/// How often the guard is asked when nobody needs it, for `/readyz`.
const LOOK_AT_GUARD: Duration = Duration::from_secs(15);
/// The same while the admission policies are not in force.
const TRY_GUARD: Duration = Duration::from_secs(2);

/// How often the store is looked through for what is over.
const SWEEP: Duration = Duration::from_mins(1);

/// So many objects are listed at a time: their text and what is read of it are in memory at once. Smaller pages keep a start
/// waiting: the API server needs some 25 ms for each, and 0.2 ms for each object (Kubernetes 1.36, 100,000 objects).
pub(super) const PAGE: u32 = 250;

/// How long one watch lasts, in seconds; then it is begun anew where it was.
const WATCH: u32 = 10;
/// How long the API server may be silent while an answer of it is awaited. Longer than a watch: one that hangs, or a list that
/// never comes, is asked for anew, and what is due does not wait for it.
pub const SILENCE: Duration = Duration::from_secs(15);

/// What the controllers are made of.
pub struct Wiring {
    /// The way to the API server.
    pub client: Client,
    /// Watches over the admission policies.
    pub guard: Guard,
    /// The keys of the seals.
    pub keyring: Arc<Keyring>,
    /// The realms of the configuration.
    pub realms: Arc<BTreeMap<String, Realm>>,
    /// Access that is given up without proof.
    pub release: Release,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// How it came to lead.
    pub takeover: Takeover,
}

fn tell_of(release: &Release) {
    if !release.is_empty() {
        let Release { realms, requests } = release;
        tracing::warn!(?realms, ?requests, "access is given up without proof, as the configuration says");
    }
}

/// Runs both controllers until `stop` says so. To be started by whoever leads, and not before: what is listed first is then what
/// the one before has left. `started` is given the context at once. Answers with when everything that was sent to Keycloak has
/// surely settled, also what the leaders before have sent.
pub async fn run(wiring: Wiring, stop: watch::Receiver<bool>, started: impl FnOnce(Arc<Context>)) -> Timestamp {
    let Wiring { client, guard, keyring, realms, release, metrics, leadership, takeover } = wiring;
    let (policies, policy_writer) = reflector::store();
    let (requests, request_writer) = reflector::store();
    // Without a limit: what is woken is one of the requests there are, and none may be missed.
    let (wake, woken) = channel::mpsc::unbounded();
    let (gone, vanishing) = mpsc::unbounded_channel();
    let context = Arc::new(Context {
        record: Record::new(client.clone(), guard.namespace()),
        writes: Arc::default(),
        listed: Listed::default(),
        index: Index::new(requests.clone(), keyring.clone(), gone, leadership.clone()),
        policies: policies.clone(),
        policy_reads: policies::Reads::holding(policies::READS),
        verdicts: std::sync::Mutex::default(),
        locks: Locks::default(),
        memory: std::sync::Mutex::default(),
        settling: Settling::new(takeover),
        found: super::drift::Found::default(),
        due_first: DueFirst::default(),
        differences: Differences::default(),
        woken: wake,
        stop: stop.clone(),
        release,
        guard_state: std::sync::Mutex::new(Err("not asked yet".into())),
        older_key: 0.into(),
        client: client.clone(),
        realms,
        guard,
        keyring,
        metrics,
        leadership,
    });
    started(context.clone());
    tell_of(&context.release);
    // A policy's change is news for itself, for other policies (grants that make approvers) and for its requests.
    let (news, _) = broadcast::channel(1024);
    let policy_changes = watched(Api::all(client.clone()), tell(news.clone()));
    let following = context.clone();
    let policy_changes = reflector::reflector(policy_writer, policy_changes);
    let policy_changes =
        policy_changes.inspect_ok(move |event| following.listed.follow_policies(event)).touched_objects();
    let other_policies = {
        let policies = policies.clone();
        listen(news.subscribe()).filter(|news| future::ready(news.concerns_other_policies())).flat_map(move |_| {
            let concerned =
                policies.state_filter(|policy| policy.spec.grants.iter().any(|grant| grant.group.is_some()));
            stream::iter(references(&concerned))
        })
    };
    let policy_queue =
        stream::select(policy_changes.map_ok(|policy| ObjectRef::from_obj(&policy)), other_policies.map(Ok));
    let request_changes = changes_of_requests(&context, request_writer, requests.clone());
    let of_policy = {
        let requests = requests.clone();
        listen(news.subscribe()).flat_map(move |news| {
            let concerned = requests.state_filter(|request| news.concerns_requests_of(&request.spec.policy_name));
            stream::iter(references(&concerned))
        })
    };
    let request_queue = stream::select(request_changes, stream::select(of_policy, woken).map(Ok));

    let policy_loop = applier(
        |policy, context| Box::pin(policies::reconcile(policy, context)),
        |policy, error, context| policy_failed(&policy, error, &context),
        context.clone(),
        policies.clone(),
        request_stop(policy_queue, stop.clone()),
        Config::default(),
    )
    .for_each(|done| {
        finished(&context, "policy", &done);
        future::ready(())
    });
    let request_loop = async {
        // A policy that the cache does not have yet is not a policy that was deleted.
        let _ = policies.wait_until_ready().await;
        applier(
            |request, context| Box::pin(reconcile::reconcile(request, context)),
            |request, error, context| request_failed(&request, error, &context),
            context.clone(),
            requests.clone(),
            request_stop(request_queue, stop.clone()),
            Config::default(),
        )
        .for_each(|done| {
            finished(&context, "request", &done);
            future::ready(())
        })
        .await;
    };
    let background = look_after_the_rest(&context, &requests, vanishing, stop.clone());
    let policy_loop = to_the_end(policy_loop, &policies, stop.clone());
    let request_loop = to_the_end(request_loop, &requests, stop.clone());
    tokio::join!(policy_loop, request_loop, background);
    context.tell_of_the_vanished();
    context.unsettled_until()
}

/// A watch. An object that this version cannot read is told of and left out: it stops no other.
/// `tell` hears of every event first, of those objects, too.
fn watched<K>(
    api: Api<Lenient<K>>,
    mut tell: impl FnMut(&watcher::Event<Lenient<K>>) + Send + 'static,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, watcher::Config::default().timeout(WATCH).page_size(PAGE)).default_backoff().filter_map(move |event| {
        future::ready(match event {
            Ok(event) => {
                tell(&event);
                readable(event).map(Ok)
            }
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), error = super::chain(&error), "watch broken, trying again");
                None
            }
        })
    })
}

/// The watch over requests, which keeps their store.
fn changes_of_requests(
    context: &Arc<Context>,
    writer: Writer<AccessRequest>,
    store: Store<AccessRequest>,
) -> impl Stream<Item = Result<ObjectRef<AccessRequest>, watcher::Error>> + use<> {
    let watched = watched(Api::all(context.client.clone()), vanished::tell(context.clone()));
    let kept = without_what_is_over(watched, context.clone(), store);
    let following = context.clone();
    let shown = reflector::reflector(writer, kept).inspect_ok(move |event| {
        following.index.follow(event);
        following.listed.follow_requests(event);
    });
    shown.touched_objects().map_ok(|request| ObjectRef::from_obj(&request))
}

/// What a watch shows, for a store that holds nothing that [is over](Index::is_over): it does not come in, and goes when its time has
/// come.
fn without_what_is_over(
    watched: impl Stream<Item = Result<watcher::Event<AccessRequest>, watcher::Error>>,
    context: Arc<Context>,
    store: Store<AccessRequest>,
) -> impl Stream<Item = Result<watcher::Event<AccessRequest>, watcher::Error>> {
    let looking = context.clone();
    let watched = watched.try_filter_map(move |event| {
        let is_over = |request: &AccessRequest| looking.index.is_over(request, Timestamp::now());
        future::ok(match event {
            watcher::Event::InitApply(request) if is_over(&request) => {
                looking.index.let_go(&request);
                None
            }
            watcher::Event::Apply(request) if is_over(&request) => {
                looking.index.let_go(&request);
                Some(watcher::Event::Delete(request))
            }
            event => Some(event),
        })
    });
    let sweeps = stream::unfold(store.clone(), async |store| {
        tokio::time::sleep(SWEEP).await;
        Some((references(&store.state()), store))
    });
    let over = sweeps.flat_map(stream::iter).filter_map(move |request| {
        let stored = store.get(&request).filter(|stored| context.index.is_over(stored, Timestamp::now()));
        future::ready(stored.map(|stored| {
            context.index.let_go(&stored);
            Ok(watcher::Event::Delete(stored.as_ref().clone()))
        }))
    });
    stream::select(watched, over)
}

fn readable<K: Resource<DynamicType = ()>>(event: watcher::Event<Lenient<K>>) -> Option<watcher::Event<K>> {
    let read = |object: Lenient<K>| match object {
        Lenient::Read(object) => Some(object),
        Lenient::Unreadable { metadata, why, .. } => {
            let ObjectMeta { name, namespace, .. } = *metadata;
            tracing::error!(kind = %K::kind(&()), name, namespace, error = %why, "this version cannot read an object");
            None
        }
    };
    match event {
        watcher::Event::Init => Some(watcher::Event::Init),
        watcher::Event::InitDone => Some(watcher::Event::InitDone),
        watcher::Event::InitApply(object) => read(object).map(watcher::Event::InitApply),
        watcher::Event::Apply(object) => read(object).map(watcher::Event::Apply),
        watcher::Event::Delete(object) => read(object).map(watcher::Event::Delete),
    }
}

/// What happened to policies.
#[derive(Clone, Debug)]
enum News {
    /// All may have changed, or gone: some news was missed.
    Missed,
    /// One changed, or went.
    Of {
        name: String,
        /// Whether its spec did, and not only its status.
        spec: bool,
    },
}

impl News {
    const fn concerns_other_policies(&self) -> bool {
        match self {
            Self::Missed => true,
            Self::Of { name: _, spec } => *spec,
        }
    }

    fn concerns_requests_of(&self, policy: &str) -> bool {
        match self {
            Self::Missed => true,
            Self::Of { name, spec: _ } => name == policy,
        }
    }
}

/// Turns events of the watch into news.
fn tell(news: broadcast::Sender<News>) -> impl FnMut(&watcher::Event<Lenient<AccessPolicy>>) {
    let mut known = HashMap::new();
    move |event| {
        let (policy, gone) = match event {
            watcher::Event::Init => return,
            // What went while the watch was broken is missing from the list, and nobody says so.
            watcher::Event::InitDone => return drop(news.send(News::Missed)),
            watcher::Event::InitApply(policy) | watcher::Event::Apply(policy) => (policy, false),
            watcher::Event::Delete(policy) => (policy, true),
        };
        let (name, version) = (policy.name_any(), (policy.uid(), policy.meta().generation));
        let before = if gone { known.remove(&name) } else { known.insert(name.clone(), version.clone()) };
        let _ = news.send(News::Of { name, spec: gone || before != Some(version) });
    }
}

/// What happens to policies from now on. What comes too fast is one piece of news: all may have changed.
fn listen(news: broadcast::Receiver<News>) -> impl Stream<Item = News> {
    stream::unfold(news, |mut news| async move {
        match news.recv().await {
            Ok(heard) => Some((heard, news)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some((News::Missed, news)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    })
}

fn references<K: Resource<DynamicType = ()>>(objects: &[Arc<K>]) -> Vec<ObjectRef<K>> {
    objects.iter().map(|object| ObjectRef::from_obj(object.as_ref())).collect()
}

/// Runs a loop until what it has begun is finished, once the process is told to stop. If its store was not listed by then it has begun
/// nothing, and would wait for the list that is not asked for any more.
async fn to_the_end<K>(running: impl Future<Output = ()>, store: &Store<K>, stop: watch::Receiver<bool>)
where
    K: reflector::Lookup + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    let has_begun = || store.wait_until_ready().now_or_never().is_some();
    let stopped_before = async {
        stopped(stop).await;
        if has_begun() {
            future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = running => {}
        () = stopped_before => {}
    }
}

/// Ends a queue when the process is told to stop: what runs is finished, nothing new is begun.
fn request_stop<S: Stream>(queue: S, stop: watch::Receiver<bool>) -> impl Stream<Item = S::Item> {
    queue.take_until(Box::pin(stopped(stop)))
}

/// Waits until the process is told to stop.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that whoever could say stop is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What goes on beside the loops.
async fn look_after_the_rest(
    context: &Context,
    requests: &Store<AccessRequest>,
    vanishing: mpsc::UnboundedReceiver<String>,
    stop: watch::Receiver<bool>,
) {
    tokio::select! {
        () = stopped(stop) => {}
        () = Box::pin(look_after(context)) => {}
        () = look_after_seals(context, requests) => {}
        () = context.look_after_clocks() => {}
        () = context.look_after_vanished(vanishing) => {}
        () = look_after_holdings(context, requests) => {}
    }
}

/// Keeps what `/readyz` says up to date.
async fn look_after(context: &Context) {
    let guard = async {
        loop {
            // Only who leads for sure begins and ends epochs.
            if context.leadership.may_give().is_err() {
                tokio::time::sleep(TRY_GUARD).await;
                continue;
            }
            let answer = context.guard.keep().await;
            context.remember_guard(&answer);
            if let Err(error) = context.record.begin().await {
                tracing::warn!(
                    error = super::chain(&error),
                    "cannot read the record of what has started without a vote"
                );
            }
            context.look_for_what_is_not_shown().await;
            context.forget_the_gone();
            tokio::time::sleep(if answer.is_ok() { LOOK_AT_GUARD } else { TRY_GUARD }).await;
        }
    };
    let realms = context.realms.iter().map(|(name, realm)| reach::look_after(context, name, realm));
    future::join(guard, future::join_all(realms)).await;
}

/// Keeps the seals by the newest key, once all requests are known.
async fn look_after_seals(context: &Context, requests: &Store<AccessRequest>) {
    // An error means that nothing is watched any more.
    if requests.wait_until_ready().await.is_ok() {
        Box::pin(context.keep_seals()).await;
    }
}

/// Looks at what is held, once all requests are known.
async fn look_after_holdings(context: &Context, requests: &Store<AccessRequest>) {
    // An error means that nothing is watched any more.
    if requests.wait_until_ready().await.is_ok() {
        Box::pin(context.look_after_holdings()).await;
    }
}

fn policy_failed(policy: &AccessPolicy, error: &Error, context: &Context) -> Action {
    let wait = context.retry_after(policy.metadata.uid.as_deref().unwrap_or_default());
    failed("policy", policy, error, wait)
}

fn request_failed(request: &Arc<AccessRequest>, error: &Error, context: &Context) -> Action {
    // Whatever failed, what falls due is looked at in time.
    let request = context.index.newest(request).trusted.unwrap_or_else(|| request.clone());
    let due = Request::parse(&request).deadline().map(|deadline| context.until(&request, deadline));
    let wait = context.pause(&request, error, due.filter(|due| !due.is_zero()));
    failed("request", request.as_ref(), error, wait)
}

fn failed<K: Resource<DynamicType = ()>>(kind: &str, object: &K, error: &Error, wait: Duration) -> Action {
    let (name, namespace) = (object.name_any(), object.namespace());
    if error.is_for_want_of_a_turn() {
        tracing::debug!(kind, name, namespace, error = error.chain(), ?wait, "waits for a turn");
    } else {
        tracing::warn!(kind, name, namespace, error = error.chain(), ?wait, "trying again");
    }
    Action::requeue(wait)
}

fn finished<K: Resource>(
    context: &Context,
    kind: &'static str,
    done: &Result<(ObjectRef<K>, Action), ControllerError<Error, watcher::Error>>,
) {
    match done {
        Ok(_) => context.metrics.reconciled(kind, ""),
        Err(ControllerError::ReconcilerFailed(error, _)) => context.metrics.reconciled(kind, error.category()),
        // It was deleted while it waited its turn.
        Err(ControllerError::ObjectNotFound(_)) => {}
        Err(error) => tracing::warn!(kind, error = super::chain(error), "controller"),
    }
}
