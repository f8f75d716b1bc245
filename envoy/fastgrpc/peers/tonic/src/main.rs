//! Asks Tollgate's fast listener with tonic's client.
//!
//!     tonic-peer suite ADDRESS              each kind of call once, and many at once
//!     tonic-peer soak SECONDS RATE ADDRESS… calls for so long, of all addresses in turn
//!
//! It exits with 1 if an answer was another than it should be. The consumers and
//! rules that it counts on are those of the test that runs it,
//! internal/endtoend/tonic_test.go.

mod client;
mod messages;
mod soak;
mod suite;

use std::process::ExitCode;
use std::time::Duration;

use client::Client;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let good = match args.as_slice() {
        ["suite", address] => suite::run(&Client::new(address)).await,
        ["soak", seconds, rate, addresses @ ..] if !addresses.is_empty() => {
            let clients = addresses.iter().map(|a| Client::new(a)).collect();
            let seconds = Duration::from_secs(seconds.parse().expect("SECONDS is a number"));
            soak::run(clients, seconds, rate.parse().expect("RATE is a number")).await
        }
        _ => {
            eprintln!("usage: tonic-peer suite ADDRESS | tonic-peer soak SECONDS RATE ADDRESS…");
            return ExitCode::from(2);
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
