//! Calls for a long time, while connections retire and servers restart. A call
//! that fails on the way is tried again, of another server, as Envoy does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tonic::Code;

use crate::client::Client;

const TASKS: u64 = 8;
const TRIES: u32 = 6;
const TRY_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    retries: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
}

pub async fn run(clients: Vec<Client>, time: Duration, rate: u64) -> bool {
    let counts = Arc::new(Counts::default());
    let end = Instant::now() + time;
    let mut set = JoinSet::new();
    for task in 0..TASKS {
        let (clients, counts) = (clients.clone(), counts.clone());
        set.spawn(async move {
            let mut pace = interval(Duration::from_micros(TASKS * 1_000_000 / rate.max(1)));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for i in task.. {
                if Instant::now() >= end {
                    return;
                }
                pace.tick().await;
                if i % 100 == 99 {
                    cancel(&clients[i as usize % clients.len()], &counts).await;
                } else {
                    call(&clients, i as usize, &counts).await;
                }
            }
        });
    }
    set.join_all().await;
    let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
    println!(
        "tonic: {} calls, {} tries repeated, {} calls cancelled, {} failed",
        of(&counts.calls), of(&counts.retries), of(&counts.cancelled), of(&counts.failed)
    );
    of(&counts.failed) == 0 && of(&counts.calls) > 0
}

async fn call(clients: &[Client], first: usize, counts: &Counts) {
    counts.calls.fetch_add(1, Ordering::Relaxed);
    let mut last = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            counts.retries.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(20 << attempt)).await;
        }
        let client = &clients[(first + attempt as usize) % clients.len()];
        match client.check("secret-of-steady-prod", 0, Some(TRY_TIMEOUT)).await {
            Ok(0) => return,
            Ok(code) => last = format!("decision {code}"),
            // What ended on the way: tonic says UNKNOWN or CANCELLED for a
            // connection that went before the call was sent, and for a timeout.
            Err(s) if matches!(s.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded) => {
                last = s.to_string()
            }
            Err(s) => {
                last = s.to_string();
                break;
            }
        }
    }
    if counts.failed.fetch_add(1, Ordering::Relaxed) < 5 {
        println!("tonic: a call failed: {last}");
    }
}

/// A held call that is dropped.
async fn cancel(client: &Client, counts: &Counts) {
    let held = client.check("secret-of-held-prod", 0, None);
    if tokio::time::timeout(Duration::from_millis(50), held).await.is_err() {
        counts.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}
