//! The HTTP service: accepts until it is asked to stop, then finishes what it has begun.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::env::Settings;
use crate::routes::Shop;
use crate::streams::Body;
use crate::{say, stop};

/// How long WebSockets may take to close.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves until it is asked to stop.
pub(crate) async fn run(settings: Settings) -> ExitCode {
    let version = settings.version.clone();
    match serve(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            say::line(&format!("shop {version} api: {reason}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings) -> Result<(), String> {
    let mut stopped = stop::signalled(settings.faults.ignore_sigterm)?;
    if let Some(delay) = settings.faults.slow_start {
        say::line(&format!("shop {} api: listens in {delay:?}, as SHOP_FAULT says", settings.version));
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop::wait(&mut stopped) => return Ok(()),
        }
    }
    let listener = TcpListener::bind(("0.0.0.0", settings.port)).await.map_err(|error| format!("could not listen: {error}"))?;
    say::line(&format!("shop {} api: listens on port {}", settings.version, settings.port));
    let (sockets, mut open) = mpsc::channel(1);
    let shop = Arc::new(Shop::new(settings, stopped.clone(), sockets)?);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&shop), stopped.clone()));
                }
                // Out of file descriptors, or a client that left in the queue: the next one may be well.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
            () = stop::wait(&mut stopped) => break,
        }
    }
    drop(listener);
    say::line(&format!("shop {} api: stops; {} connections to finish", shop.version(), connections.len()));
    while connections.join_next().await.is_some() {}
    say::line(&format!("shop {} api: stopped", shop.version()));
    drop(shop);
    // Each says goodbye to its client; one that does not listen is not waited for.
    tokio::time::timeout(GOODBYE, open.recv()).await.ok();
    Ok(())
}

async fn connection(stream: TcpStream, shop: Arc<Shop>, mut stopped: watch::Receiver<bool>) {
    // Small answers must not wait for the client's acknowledgement.
    drop(stream.set_nodelay(true));
    let answered = Arc::new(Notify::new());
    let notify = shop.closes_after_answer().then(|| Arc::clone(&answered));
    let service = service_fn(move |request| {
        let (shop, notify) = (Arc::clone(&shop), notify.clone());
        async move { Ok::<_, std::convert::Infallible>(shop.answer(request).await.map(|body| Told { body, notify })) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // A client that went away is its own business; nothing is to be done about the error.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = answered.notified() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
        () = stop::wait(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

/// A body that tells when it is over.
struct Told {
    body: Body,
    notify: Option<Arc<Notify>>,
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(notify) = &self.notify {
            notify.notify_one();
        }
    }
}

impl hyper::body::Body for Told {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
