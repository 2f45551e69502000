//! The pages for administrators: the metrics, a page that draws them, and
//! whether the server is well.
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::app::App;
use super::sockets::acceptor::{Accepted, Acceptor};

/// How many connections may be open. The oldest one makes room for another.
const CONNECTIONS: usize = 32;

/// The time for the head of a request, and the time of a connection.
const HEADER_TIME: Duration = Duration::from_secs(5);
const TIME: Duration = Duration::from_secs(30);

/// The page. It requests the metrics itself, so the server keeps nothing for
/// it.
const PAGE: &str = include_str!("page.html");
/// It may run its own script, named by its hash, and ask this server.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-u6rcHZI+vtMBT7/5uhd7ej9T0GtptSVTrZvc4n+4L0U='; \
    style-src 'unsafe-inline'; img-src data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers administrators, without an end.
pub(super) async fn accept(acceptor: Acceptor, app: Arc<App>) {
    let mut open = VecDeque::new();
    loop {
        let Ok(accepted) = acceptor.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.retain(|task: &AbortHandle| !task.is_finished());
        if open.len() >= CONNECTIONS {
            // Silent connections must not keep an administrator waiting.
            open.pop_front().inspect(AbortHandle::abort);
        }
        let app = app.clone();
        let task = match accepted {
            Accepted::Tcp(stream, _) => tokio::spawn(serve(stream, app)),
            Accepted::Unix(stream) => tokio::spawn(serve(stream, app)),
        };
        open.push_back(task.abort_handle());
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, app: Arc<App>) {
    let service =
        service_fn(async |request| Ok::<_, Infallible>(answer(&request, &app).await));
    let connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), service);
    // The result does not matter, because the administrator sees it.
    let _ = timeout(TIME, connection).await;
}

async fn answer(request: &Request<Incoming>, app: &Arc<App>) -> Response<Full<Bytes>> {
    let draining = app.drain.has_begun();
    let text = |text: &'static str| Full::new(Bytes::from_static(text.as_bytes()));
    let is_get = request.method() == Method::GET || request.method() == Method::HEAD;
    let mut response = match request.uri().path() {
        _ if !is_get => {
            let mut response = Response::new(text("only GET\n"));
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            let allow = "GET, HEAD".parse().expect("a header");
            response.headers_mut().insert(ALLOW, allow);
            response
        }
        "/" => page(),
        "/metrics" => {
            // With ten thousand databases this takes a while, and would hold up
            // the connections of a thread of the server.
            let app = app.clone();
            let metrics = spawn_blocking(move || app.metrics_text());
            let metrics = metrics.await.unwrap_or_default();
            Response::new(Full::new(metrics.into()))
        }
        "/health/ready" if draining => {
            let mut response = Response::new(text("draining\n"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
        "/health/live" | "/health/ready" => Response::new(text("ok\n")),
        _ => {
            let mut response = Response::new(text("there is nothing here\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    };
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().entry(CONTENT_TYPE).or_insert(kind);
    response
}

fn page() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(PAGE.as_bytes())));
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
