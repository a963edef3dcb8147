//! A proxy between the operator and a server. It speaks plain HTTP to the operator and TLS to the server, passes on what
//! comes, streams included, and does to single calls what the [`Script`] says.

use std::{convert::Infallible, error::Error, fs, future::pending, io, net::SocketAddr, path::Path, sync::Arc};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use reqwest::Certificate;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::script::{DOWN, Fault, Garbage, LATE, SLOW, Script};

/// Twice as much as the operator reads of an answer.
const HUGE: usize = 8 * 1024 * 1024;

type Failure = Box<dyn Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Failure>;

/// Which server is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Keycloak,
    Api,
}

/// One proxy. It runs until the test is over.
struct Proxy {
    server: Server,
    upstream: String,
    http: reqwest::Client,
    script: Arc<Script>,
}

/// Starts a proxy to this URL; answers with its own.
pub async fn start(server: Server, upstream: &str, ca_file: &Path, script: Arc<Script>) -> String {
    let pem = fs::read(ca_file).expect("the stack's certificate authority");
    let http = reqwest::Client::builder()
        .tls_certs_only(Certificate::from_pem_bundle(&pem).expect("PEM"))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("HTTP client");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let proxy = Arc::new(Proxy { server, upstream: upstream.to_owned(), http, script });
    tokio::spawn(proxy.listen(listener, address));
    format!("http://{address}")
}

impl Proxy {
    async fn listen(self: Arc<Self>, mut listener: TcpListener, address: SocketAddr) {
        let mut down = self.script.down[self.server as usize].subscribe();
        loop {
            tokio::select! {
                Ok((connection, _)) = listener.accept() => {
                    tokio::spawn(self.clone().serve(connection));
                }
                _ = down.changed() => {
                    drop(listener);
                    sleep(DOWN).await;
                    listener = TcpListener::bind(address).await.expect("the port of before");
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, connection: TcpStream) {
        let mut down = self.script.down[self.server as usize].subscribe();
        let service = service_fn(|request| self.clone().handle(request));
        let serving = http1::Builder::new().serve_connection(TokioIo::new(connection), service);
        tokio::select! {
            // An error is a connection that was cut, by us or by the operator.
            _ = serving => {}
            _ = down.changed() => {}
        }
    }

    /// An error here cuts the connection.
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let kind = kind(self.server, head.method.as_str(), &path);
        // A sign-in has nothing of a life in it, but the secret.
        let text = if self.server == Server::Api { &body[..] } else { &[] };
        let (call, fault) = self.script.comes(&kind, format!("{} {path}", head.method), text);
        let mut headers = head.headers;
        for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let sending = self.http.request(head.method, format!("{}{path}", self.upstream)).headers(headers).body(body);
        match fault {
            Some(fault @ (Fault::Late | Fault::KillLate)) => {
                self.later(LATE, call, sending);
                return self.strike(fault).await;
            }
            Some(Fault::HangLate) => {
                let _given_up = GivenUp { proxy: self, call: Some((call, sending)) };
                return pending().await;
            }
            Some(Fault::Slow) => sleep(SLOW).await,
            Some(fault) if fault.comes_before() => return self.strike(fault).await,
            _ => {}
        }
        let answer = self.clone().forward(call, sending).await?;
        match fault {
            None | Some(Fault::Slow) => Ok(answer),
            Some(Fault::Body(garbage)) => garble(answer, garbage).await,
            Some(fault) => self.strike(fault).await,
        }
    }

    /// In place of an answer.
    async fn strike(&self, fault: Fault) -> Result<Response<Body>, Failure> {
        match fault {
            Fault::Kill(_) | Fault::KillLate => {
                self.script.kill().await;
                cut("the operator was killed")
            }
            Fault::Down(_) => {
                self.script.down[self.server as usize].send_modify(|times| *times += 1);
                cut("down")
            }
            Fault::Hang(_) | Fault::HangLate => pending().await,
            Fault::Status(status, _) => Ok(answer(status)),
            Fault::Busy(status, seconds) => {
                let mut answer = answer(status);
                answer.headers_mut().insert(RETRY_AFTER, seconds.into());
                Ok(answer)
            }
            Fault::Cut(_) | Fault::Late | Fault::Body(_) | Fault::Slow => cut("cut"),
        }
    }

    /// Passes a call on. What was sent is at work whoever goes away meanwhile.
    async fn forward(
        self: Arc<Self>,
        call: usize,
        sending: reqwest::RequestBuilder,
    ) -> Result<Response<Body>, Failure> {
        let travelling = self.script.departs();
        let sent = tokio::spawn(async move {
            let answer = sending.send().await;
            drop(travelling);
            answer
        });
        let answer = sent.await??;
        self.script.answered(call, answer.status().as_u16());
        let mut answer: Response<reqwest::Body> = answer.into();
        clear(answer.headers_mut());
        Ok(answer.map(|body| body.map_err(Failure::from).boxed_unsync()))
    }

    fn later(self: &Arc<Self>, delay: std::time::Duration, call: usize, sending: reqwest::RequestBuilder) {
        let (proxy, travelling) = (self.clone(), self.script.departs());
        tokio::spawn(async move {
            sleep(delay).await;
            let _ = proxy.forward(call, sending).await;
            drop(travelling);
        });
    }
}

/// A call that is passed on when the operator does not wait for the answer any more.
struct GivenUp {
    proxy: Arc<Proxy>,
    call: Option<(usize, reqwest::RequestBuilder)>,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some((call, sending)) = self.call.take() {
            self.proxy.later(LATE, call, sending);
        }
    }
}

/// What is about the connection to the server, and not about the answer.
fn clear(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
}

fn cut(why: &str) -> Result<Response<Body>, Failure> {
    Err(io::Error::other(why.to_owned()).into())
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// An answer that both servers could give, in the form of both.
fn answer(status: u16) -> Response<Body> {
    let reason = match status {
        409 => "Conflict",
        401 => "Unauthorized",
        403 => "Forbidden",
        _ => "InternalError",
    };
    let message = format!("HTTP {status} by the fault proxy");
    let body = json!({
        "error": message, "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status,
    });
    let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    answer.body(full(body.to_string())).expect("an answer")
}

/// Something else in place of an answer's body.
async fn garble(answer: Response<Body>, garbage: Garbage) -> Result<Response<Body>, Failure> {
    let (mut head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    head.status = StatusCode::OK;
    let body = match garbage {
        Garbage::Html => {
            head.headers.insert(CONTENT_TYPE, "text/html".parse()?);
            full("<html><body>502 Bad Gateway</body></html>")
        }
        Garbage::Empty => full(""),
        Garbage::Huge => full(format!("[{}]", " ".repeat(HUGE))),
        Garbage::Truncated => {
            let half = Frame::data(body.slice(..body.len() / 2));
            let end = Failure::from(io::Error::other("truncated"));
            StreamBody::new(stream::iter([Ok(half)]).chain(stream::once(async { Err(end) }))).boxed_unsync()
        }
    };
    head.headers.remove(CONTENT_LENGTH);
    if garbage == Garbage::Truncated {
        head.headers.insert(CONTENT_LENGTH, "100000".parse()?);
    }
    Ok(Response::from_parts(head, body))
}

/// Method and endpoint, without the names and ids in it.
fn kind(server: Server, method: &str, path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match server {
        Server::Keycloak => format!("keycloak {method} {}", keycloak_endpoint(path)),
        Server::Api => {
            let mut what = api_endpoint(path);
            if query.contains("dryRun=") {
                what.push_str(" dry-run");
            }
            let method = if query.contains("watch=") { "WATCH" } else { method };
            format!("api {method} {what}")
        }
    }
}

fn keycloak_endpoint(path: &str) -> String {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let [_, "realms", _, rest @ ..] = &parts[..] else {
        return parts.last().copied().unwrap_or_default().to_owned();
    };
    match rest {
        [] => "realm".into(),
        ["group-by-path", ..] => "group-by-path/*".into(),
        // Its id is no UUID.
        ["sessions", _] => "sessions/*".into(),
        rest => {
            let is_id = |part: &str| part.len() == 36 && part.matches('-').count() == 4;
            rest.iter().map(|part| if is_id(part) { "*" } else { part }).collect::<Vec<_>>().join("/")
        }
    }
}

fn api_endpoint(path: &str) -> String {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let skipped = match parts.first() {
        Some(&"api") => 2,
        Some(&"apis") => 3,
        _ => 0,
    };
    let rest = parts.get(skipped..).unwrap_or_default();
    match rest {
        ["namespaces", _, resource] => (*resource).into(),
        ["namespaces", _, resource, _] | [resource, _] => format!("{resource}/*"),
        ["namespaces", _, resource, _, sub] => format!("{resource}/*/{sub}"),
        rest => rest.join("/"),
    }
}
