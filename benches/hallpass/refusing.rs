//! A proxy before Keycloak that refuses some calls with 503, as a load balancer does whose nodes come and go. Nothing of a refused call
//! reaches Keycloak. It speaks plain HTTP to whoever asks.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// How many of a hundred calls it refuses; it runs as long as the process.
pub struct Refusing {
    pub url: String,
    of_hundred: Arc<AtomicU32>,
}

impl Refusing {
    /// A proxy to this server that refuses nothing yet.
    pub async fn before(url: &str, http: reqwest::Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = format!("http://{}", listener.local_addr().expect("an address"));
        let (of_hundred, calls, upstream) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), url.to_owned());
        let share = of_hundred.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (http, upstream) = (http.clone(), upstream.clone());
                let (share, calls) = (share.clone(), calls.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        // Spread over the hundred.
                        let turn = calls.fetch_add(37, Ordering::Relaxed) % 100;
                        let refuses = turn < share.load(Ordering::Relaxed);
                        answer(http.clone(), upstream.clone(), refuses, request)
                    });
                    // An error is a connection that was closed.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        Self { url: own, of_hundred }
    }

    /// From now on it refuses so many of a hundred.
    pub fn refuses(&self, of_hundred: u32) {
        self.of_hundred.store(of_hundred, Ordering::Relaxed);
    }
}

async fn answer(
    http: reqwest::Client,
    upstream: String,
    refuses: bool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let no = |status: StatusCode| {
        let mut answer = Response::new(Full::from("no upstream"));
        *answer.status_mut() = status;
        answer
    };
    if refuses {
        return Ok(no(StatusCode::SERVICE_UNAVAILABLE));
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = head.headers;
    for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let sent = http.request(head.method, format!("{upstream}{path}")).headers(headers).body(body).send().await;
    let Ok(answer) = sent else { return Ok(no(StatusCode::BAD_GATEWAY)) };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let Ok(bytes) = answer.bytes().await else { return Ok(no(StatusCode::BAD_GATEWAY)) };
    let mut answer = Response::new(Full::new(bytes));
    (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
    Ok(answer)
}
