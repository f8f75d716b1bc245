//! Each kind of call once, and many at once.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::client::Client;
use crate::messages::*;

const STEADY: &str = "secret-of-steady-prod"; // admitted, always
const HELD: &str = "secret-of-held-prod"; // one a second, held for up to 20 s
const UNAUTHENTICATED: i32 = 16;
const OK: i32 = 1; // of ShouldRateLimit and of health
const OVER_LIMIT: i32 = 2;

struct Suite {
    failed: usize,
}

impl Suite {
    /// Is want for the result of a call.
    fn answered(&mut self, what: &str, got: Result<i32, Status>, want: i32) {
        self.want(what, got.map_err(|s| s.to_string()), Ok(want));
    }

    fn want<T: Debug + PartialEq>(&mut self, what: &str, got: T, want: T) {
        let good = got == want;
        println!("{} {what}: {got:?}{}", if good { "ok  " } else { "FAIL" }, if good { String::new() } else { format!(", want {want:?}") });
        self.failed += usize::from(!good);
    }
}

fn code<T>(result: Result<T, Status>) -> Code {
    result.err().map_or(Code::Ok, |s| s.code())
}

pub async fn run(client: &Client) -> bool {
    let mut suite = Suite { failed: 0 };
    calls(&mut suite, client).await;
    refusals(&mut suite, client).await;
    many(&mut suite, client).await;
    deadlines(&mut suite, client).await;
    cancellations(&mut suite, client).await;
    println!("{} failed", suite.failed);
    suite.failed == 0
}

async fn calls(suite: &mut Suite, client: &Client) {
    suite.answered("Check with a token", client.check(STEADY, 0, None).await, 0);
    suite.answered("Check without one that is known", client.check("nobody's", 0, None).await, UNAUTHENTICATED);
    suite.answered("Check of 1 MiB", client.check(STEADY, 1 << 20, None).await, 0);
    for want in [OK, OK, OVER_LIMIT] {
        suite.answered("ShouldRateLimit of two an hour", client.should_rate_limit("tonic").await, want);
    }
    suite.answered("health", client.health().await, OK);
}

async fn refusals(suite: &mut Suite, client: &Client) {
    suite.want("Check of 9 MiB", code(client.check(STEADY, 9 << 20, None).await), Code::ResourceExhausted);
    let unknown = client.call::<_, CheckResponse>("/envoy.service.auth.v3.Authorization/Other", check(STEADY, 0), None).await;
    suite.want("another method", code(unknown), Code::Unimplemented);
    let unknown = client.call::<_, CheckResponse>("/other.Service/Check", check(STEADY, 0), None).await;
    suite.want("another service", code(unknown), Code::Unimplemented);
    let watch = client.stream::<_, HealthCheckResponse>("/grpc.health.v1.Health/Watch", HealthCheckRequest::default()).await;
    suite.want("a stream", code(watch), Code::Unimplemented);
}

/// Many calls at once on one connection.
async fn many(suite: &mut Suite, client: &Client) {
    let (tasks, each) = (500, 40);
    let mut set = JoinSet::new();
    for task in 0..tasks {
        let client = client.clone();
        set.spawn(async move {
            let mut good = 0;
            for i in 0..each {
                let size = [0, 100, 5_000][(task + i) % 3];
                good += usize::from(matches!(client.check(STEADY, size, None).await, Ok(0)));
            }
            good
        });
    }
    let good: usize = set.join_all().await.into_iter().sum();
    suite.want("of 500 streams at once, 40 calls each, admitted", good, tasks * each);
}

/// Calls whose turn comes after their deadline end with it, and hold up nobody.
async fn deadlines(suite: &mut Suite, client: &Client) {
    let mut set = JoinSet::new();
    for i in 0..50 {
        let client = client.clone();
        set.spawn(async move {
            let start = Instant::now();
            let result = client.check(HELD, 0, Some(Duration::from_millis(20 + i))).await;
            let in_time = start.elapsed() < Duration::from_secs(5);
            // A turn, or the refusal of a wait longer than the deadline, or its end.
            in_time && matches!(code(result), Code::Ok | Code::Cancelled | Code::DeadlineExceeded)
        });
    }
    suite.answered("a call beside those with deadlines", client.check(STEADY, 0, None).await, 0);
    let good = set.join_all().await.into_iter().filter(|good| *good).count();
    suite.want("of 50 calls with a short deadline, ended in time", good, 50);
}

/// Calls that are dropped while they are held are reset, and hold up nobody.
async fn cancellations(suite: &mut Suite, client: &Client) {
    let mut set = JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        set.spawn(async move { client.check(HELD, 0, None).await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    suite.answered("a call beside 200 held ones", client.check(STEADY, 0, None).await, 0);
    set.shutdown().await;
    suite.answered("a call after they were cancelled", client.check(STEADY, 0, None).await, 0);
}
