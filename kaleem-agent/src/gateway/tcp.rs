//! TCP mode: a connection is what a request is in HTTP mode. What is inside, TLS for example, passes unread.

use std::rc::Rc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::crowd::Client;
use super::listen::ListenSpec;
use super::proxy_protocol;
use super::target::now;
use super::tunnel;
use super::upstream::is_local;

/// How many connections are tried for one client.
const MOST_CONNECTS: usize = 512;
/// How often an error of our own is waited out.
const MOST_OWN_FAILURES: u32 = 5;

/// Serves a client until one of the two sides is done.
pub(crate) async fn serve(client: &Rc<Client>, mut stream: TcpStream, spec: &ListenSpec) {
    let shard = &client.shard;
    client.begin();
    let mut own_failures = 0;
    for _ in 0..MOST_CONNECTS {
        // Nobody came in time: to a client of TCP that is a closed connection.
        let Ok(flight) = shard.admit(client.listener, None, None).await else { break };
        let lane = flight.lane().clone();
        client.runs_at(&lane);
        let began = now();
        let mut far = match lane.target.connect(spec.port, shard.settings.connect_timeout).await {
            Ok(far) => far,
            Err(error) => {
                shard.blame(&lane, client.listener, &error);
                lane.meter.retries.add_one();
                if is_local(&error) {
                    own_failures += 1;
                    if own_failures > MOST_OWN_FAILURES {
                        break;
                    }
                }
                continue;
            }
        };
        lane.meter.requests.add_one();
        lane.meter.took(now().saturating_sub(began));
        if spec.send_proxy {
            let Ok(destination) = stream.local_addr() else { return };
            if far.write_all(&proxy_protocol::header(client.peer, destination)).await.is_err() {
                return;
            }
        }
        tunnel::join(client, stream, Bytes::new(), far, Bytes::new(), false).await;
        drop(flight);
        client.finish();
        return;
    }
    stream.shutdown().await.ok();
}
