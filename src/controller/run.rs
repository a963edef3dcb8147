//! Wires the watches to the reconciles, and keeps them running until the process is told to stop.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{ApiResource, DynamicObject},
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
    Context, Error, Index, Locks, Realm, Record, Settling, Takeover, lenient, policies, reach, reconcile, vanished,
};
use crate::{
    api::{AccessPolicy, AccessRequest},
    config::Release,
    domain::Request,
    guard::{Guard, Keyring},
    metrics::Metrics,
};

/// How often the guard is asked when nobody needs it, for `/readyz`.
const LOOK_AT_GUARD: Duration = Duration::from_secs(15);
/// The same while the admission policies are not in force.
const TRY_GUARD: Duration = Duration::from_secs(2);
/// So many requests can be woken at once: all that waited for one realm.
const WOKEN: usize = 8192;

/// Runs both controllers until `stop` says so. `serve` is given the context once it is there.
pub async fn run<F: Future<Output = ()>>(
    client: Client,
    guard: Guard,
    keyring: Arc<Keyring>,
    realms: BTreeMap<String, Realm>,
    release: Release,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
    serve: impl FnOnce(Arc<Context>) -> F,
) {
    let (policies, policy_writer) = reflector::store();
    let (requests, request_writer) = reflector::store();
    let (woken, _) = broadcast::channel(WOKEN);
    let (gone, vanishing) = mpsc::unbounded_channel();
    let context = Arc::new(Context {
        record: Record::new(client.clone(), guard.namespace()),
        index: Index::new(requests.clone(), keyring.clone(), gone.clone()),
        policies: policies.clone(),
        verdicts: std::sync::Mutex::default(),
        locks: Locks::default(),
        memory: std::sync::Mutex::default(),
        settling: Settling::new(Takeover::Unclean),
        found: super::drift::Found::default(),
        release,
        woken: woken.clone(),
        guard_state: std::sync::Mutex::new(Err("not asked yet".into())),
        client: client.clone(),
        realms,
        guard,
        keyring,
        metrics,
    });
    // A policy's change is news for itself, for other policies (grants that make approvers) and for its requests.
    let (news, _) = broadcast::channel(1024);
    let policy_changes = watched(Api::<AccessPolicy>::all(client.clone()), policy_writer, tell(news.clone()));
    let other_policies = {
        let policies = policies.clone();
        listen(news.subscribe(), Some(News::Missed))
            .filter(|news| future::ready(news.concerns_other_policies()))
            .flat_map(move |_| {
                let concerned =
                    policies.state_filter(|policy| policy.spec.grants.iter().any(|grant| grant.group.is_some()));
                stream::iter(references(&concerned))
            })
    };
    let policy_queue =
        stream::select(policy_changes.map_ok(|policy| ObjectRef::from_obj(&policy)), other_policies.map(Ok));
    let request_changes = watched(Api::<AccessRequest>::all(client), request_writer, vanished::tell(gone))
        .map_ok(|request| ObjectRef::from_obj(&request));
    let of_policy = {
        let requests = requests.clone();
        listen(news.subscribe(), Some(News::Missed)).flat_map(move |news| {
            let concerned = requests.state_filter(|request| news.concerns_requests_of(&request.spec.policy_name));
            stream::iter(references(&concerned))
        })
    };
    let woken = listen(woken.subscribe(), None);
    let request_queue = stream::select(request_changes, stream::select(of_policy, woken).map(Ok));

    let policy_loop = applier(
        |policy, context| Box::pin(policies::reconcile(policy, context)),
        |policy, error, context| failed(&context, "policy", policy.as_ref(), error, None),
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
            |request, error, context| {
                // Whatever failed, what falls due is looked at in time.
                let request = context.index.newest(&request).trusted.unwrap_or(request);
                let due = Request::parse(&request).deadline().filter(|deadline| *deadline > Timestamp::now());
                failed(&context, "request", request.as_ref(), error, due)
            },
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
    let background = async {
        tokio::select! {
            () = stopped(stop.clone()) => {}
            () = Box::pin(look_after(&context)) => {}
            () = look_after_seals(&context, &requests) => {}
            () = context.look_after_vanished(vanishing) => {}
            () = look_after_holdings(&context, &requests) => {}
        }
    };
    tokio::join!(policy_loop, request_loop, background, serve(context.clone()));
}

/// A watch that keeps a store. An object that this version cannot read is told of and left out: it stops no other.
/// `tell` hears of every event before the store shows it, of those objects, too.
fn watched<K>(
    api: Api<K>,
    writer: Writer<K>,
    mut tell: impl FnMut(&watcher::Event<DynamicObject>) + Send + 'static,
) -> impl Stream<Item = Result<K, watcher::Error>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<DynamicObject> = Api::all_with(api.into_client(), &ApiResource::erase::<K>(&()));
    let readable = watcher(api, watcher::Config::default()).default_backoff().filter_map(move |event| {
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
    });
    reflector::reflector(writer, readable).touched_objects()
}

fn readable<K>(event: watcher::Event<DynamicObject>) -> Option<watcher::Event<K>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let read = |mut object: DynamicObject| {
        object.metadata.managed_fields = None;
        match lenient::read(&object) {
            Ok(read) => Some(read),
            Err(error) => {
                let (name, namespace) = (object.name_any(), object.namespace());
                tracing::error!(kind = %K::kind(&()), name, namespace, %error, "this version cannot read an object");
                None
            }
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
fn tell(news: broadcast::Sender<News>) -> impl FnMut(&watcher::Event<DynamicObject>) {
    let mut known = HashMap::new();
    move |event| {
        let (policy, gone) = match event {
            watcher::Event::Init => return,
            // What went while the watch was broken is missing from the list, and nobody says so.
            watcher::Event::InitDone => return drop(news.send(News::Missed)),
            watcher::Event::InitApply(policy) | watcher::Event::Apply(policy) => (policy, false),
            watcher::Event::Delete(policy) => (policy, true),
        };
        let (name, version) = (policy.name_any(), (policy.uid(), policy.metadata.generation));
        let before = if gone { known.remove(&name) } else { known.insert(name.clone(), version.clone()) };
        let _ = news.send(News::Of { name, spec: gone || before != Some(version) });
    }
}

/// What is sent from now on; `missed` instead of what came too fast.
fn listen<T: Clone>(sent: broadcast::Receiver<T>, missed: Option<T>) -> impl Stream<Item = T> {
    stream::unfold((sent, missed), |(mut sent, missed)| async move {
        loop {
            match (sent.recv().await, &missed) {
                (Ok(heard), _) => return Some((heard, (sent, missed))),
                (Err(broadcast::error::RecvError::Lagged(_)), Some(instead)) => {
                    let instead = instead.clone();
                    return Some((instead, (sent, missed)));
                }
                (Err(broadcast::error::RecvError::Lagged(_)), None) => {}
                (Err(broadcast::error::RecvError::Closed), _) => return None,
            }
        }
    })
}

fn references<K: Resource<DynamicType = ()>>(objects: &[Arc<K>]) -> Vec<ObjectRef<K>> {
    objects.iter().map(|object| ObjectRef::from_obj(object.as_ref())).collect()
}

/// Ends a queue when the process is told to stop: what runs is finished, nothing new is begun.
fn request_stop<S: Stream>(queue: S, stop: watch::Receiver<bool>) -> impl Stream<Item = S::Item> {
    queue.take_until(Box::pin(stopped(stop)))
}

/// Waits until the process is told to stop.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that whoever could say stop is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Keeps what `/readyz` says up to date.
async fn look_after(context: &Context) {
    let guard = async {
        loop {
            let answer = context.guard.keep().await;
            context.remember_guard(&answer);
            if let Err(error) = context.record.begin().await {
                tracing::warn!(
                    error = super::chain(&error),
                    "cannot read the record of what has started without a vote"
                );
            }
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

fn failed<K: Resource<DynamicType = ()>>(
    context: &Context,
    kind: &str,
    object: &K,
    error: &Error,
    due: Option<Timestamp>,
) -> Action {
    let wait = context.retry_after(object.meta().uid.as_deref().unwrap_or_default());
    let wait = due.map_or(wait, |due| wait.min(reconcile::until(due)));
    let (name, namespace) = (object.name_any(), object.namespace());
    tracing::warn!(kind, name, namespace, error = error.chain(), ?wait, "trying again");
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
