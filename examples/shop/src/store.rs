//! Where orders are kept: Redis, or this process's memory when there is none.
//!
//! Every delivery of an order is counted under its id, so that a lost order (answered, and not here) and a duplicate
//! (counted twice) can both be told afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

/// Hash: order id and how often it was delivered.
const ORDERS: &str = "shop:orders";
/// List: ids that no worker has taken.
const QUEUE: &str = "shop:queue";
/// List: ids that a worker has taken and not finished.
const TAKEN: &str = "shop:taken";
/// Hash: id and how often a worker finished it.
const PROCESSED: &str = "shop:processed";

/// How long Redis may take to answer, or to let us in.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long a worker waits for an order before it looks whether it is to stop.
const WAIT_FOR_ORDER_SECONDS: u64 = 1;

/// The orders.
pub(crate) enum Store {
    /// In this process.
    Memory(Mutex<BTreeMap<String, u64>>),
    /// In Redis.
    Redis(Redis),
}

/// What is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Different ids.
    pub orders: u64,
    /// Ids that were delivered more than once.
    pub duplicates: u64,
    /// Ids that a worker finished.
    pub processed: u64,
    /// Ids that wait for a worker.
    pub queued: u64,
}

impl Store {
    /// The store that `url` names; nothing is connected yet.
    pub(crate) fn new(url: Option<&str>) -> Result<Self, String> {
        match url {
            Some(url) => Redis::new(url).map(Self::Redis),
            None => Ok(Self::Memory(Mutex::new(BTreeMap::new()))),
        }
    }

    /// Records a delivery; how often this id was delivered, this time included.
    pub(crate) async fn record(&self, id: &str) -> Result<u64, String> {
        match self {
            Self::Memory(orders) => {
                let mut orders = orders.lock().await;
                let count = orders.entry(id.to_owned()).or_default();
                *count += 1;
                Ok(*count)
            }
            Self::Redis(redis) => {
                let mut both = redis::pipe();
                both.atomic().hincr(ORDERS, id, 1).lpush(QUEUE, id).ignore();
                let (count,): (u64,) = redis.run(&both).await?;
                Ok(count)
            }
        }
    }

    /// How often `id` was delivered.
    pub(crate) async fn deliveries(&self, id: &str) -> Result<u64, String> {
        match self {
            Self::Memory(orders) => Ok(orders.lock().await.get(id).copied().unwrap_or(0)),
            Self::Redis(redis) => {
                let (count,): (Option<u64>,) = redis.run(redis::pipe().hget(ORDERS, id)).await?;
                Ok(count.unwrap_or(0))
            }
        }
    }

    /// Every id that begins with `prefix`, and how often it was delivered.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, String> {
        let mut all: Vec<(String, u64)> = match self {
            Self::Memory(orders) => orders.lock().await.iter().map(|(id, count)| (id.clone(), *count)).collect(),
            Self::Redis(redis) => {
                let (all,): (Vec<(String, u64)>,) = redis.run(redis::pipe().hgetall(ORDERS)).await?;
                all
            }
        };
        all.retain(|(id, _)| id.starts_with(prefix));
        Ok(all)
    }

    /// Counts of everything.
    pub(crate) async fn totals(&self) -> Result<Totals, String> {
        let count = |orders: &[u64]| (orders.len() as u64, orders.iter().filter(|deliveries| **deliveries > 1).count() as u64);
        match self {
            Self::Memory(orders) => {
                let counts: Vec<u64> = orders.lock().await.values().copied().collect();
                let (orders, duplicates) = count(&counts);
                Ok(Totals { orders, duplicates, processed: 0, queued: 0 })
            }
            Self::Redis(redis) => {
                let mut all = redis::pipe();
                all.atomic().hvals(ORDERS).hlen(PROCESSED).llen(QUEUE);
                let (counts, processed, queued): (Vec<u64>, u64, u64) = redis.run(&all).await?;
                let (orders, duplicates) = count(&counts);
                Ok(Totals { orders, duplicates, processed, queued })
            }
        }
    }
}

/// One connection to Redis, opened when it is needed and again after an error.
pub(crate) struct Redis {
    client: redis::Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    /// A connection to `url` that is not open yet.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        // The address may hold a password, so it is not repeated.
        let client = redis::Client::open(url).map_err(|_| "REDIS_URL is not an address of Redis".to_owned())?;
        Ok(Self { client, connection: Mutex::new(None) })
    }

    async fn run<T: redis::FromRedisValue>(&self, commands: &redis::Pipeline) -> Result<T, String> {
        let mut connection = self.open().await?;
        let result = commands.query_async(&mut connection).await;
        if result.is_err() {
            *self.connection.lock().await = None;
        }
        result.map_err(|error| format!("redis: {error}"))
    }

    async fn open(&self) -> Result<MultiplexedConnection, String> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            return Ok(connection.clone());
        }
        let answer = ANSWER_WITHIN + Duration::from_secs(WAIT_FOR_ORDER_SECONDS);
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER_WITHIN)).set_response_timeout(Some(answer));
        let connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| format!("redis: {error}"))?;
        Ok(slot.insert(connection).clone())
    }

    /// Whether it answers.
    pub(crate) async fn ping(&self) -> Result<(), String> {
        let mut command = redis::pipe();
        command.cmd("PING");
        let answer = self.run::<(String,)>(&command);
        let (pong,) = tokio::time::timeout(ANSWER_WITHIN, answer).await.map_err(|_| "redis: no answer".to_owned())??;
        if pong == "PONG" { Ok(()) } else { Err("redis: PING was not answered with PONG".to_owned()) }
    }

    /// How many orders wait.
    pub(crate) async fn queued(&self) -> Result<u64, String> {
        let (length,): (u64,) = self.run(redis::pipe().llen(QUEUE)).await?;
        Ok(length)
    }

    /// Takes an order, if one comes within a second.
    pub(crate) async fn take(&self) -> Result<Option<String>, String> {
        let mut take = redis::pipe();
        take.cmd("BLMOVE").arg(QUEUE).arg(TAKEN).arg("RIGHT").arg("LEFT").arg(WAIT_FOR_ORDER_SECONDS);
        let (id,): (Option<String>,) = self.run(&take).await?;
        Ok(id)
    }

    /// Notes that a worker finished `id`.
    pub(crate) async fn finish(&self, id: &str) -> Result<(), String> {
        let mut finish = redis::pipe();
        finish.atomic().hincr(PROCESSED, id, 1).ignore().lrem(TAKEN, 1, id).ignore();
        self.run::<()>(&finish).await
    }

    /// Notes that the worker on `host` is alive.
    pub(crate) async fn beat(&self, host: &str) -> Result<(), String> {
        self.run::<()>(redis::pipe().set_ex(heartbeat(host), 1, 10).ignore()).await
    }

    /// Whether the worker on `host` was alive in the last ten seconds.
    pub(crate) async fn is_alive(&self, host: &str) -> Result<bool, String> {
        let (alive,): (bool,) = self.run(redis::pipe().exists(heartbeat(host))).await?;
        Ok(alive)
    }
}

fn heartbeat(host: &str) -> String {
    format!("shop:worker:{host}")
}
