//! tonic's client for the calls that the fast listener answers.

use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::messages::*;

pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
pub const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
pub const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A client connects when it is first used, and again when it must.
#[derive(Clone)]
pub struct Client(Channel);

impl Client {
    pub fn new(address: &str) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address is HOST:PORT");
        Client(endpoint.connect_timeout(Duration::from_secs(3)).connect_lazy())
    }

    /// Makes a unary call, which ends after a timeout, here and by grpc-timeout.
    pub async fn call<Q, A>(&self, path: &'static str, question: Q, timeout: Option<Duration>) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let mut request = Request::new(question);
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
    }

    /// Opens a stream of answers, and waits for the first.
    pub async fn stream<Q, A>(&self, path: &'static str, question: Q) -> Result<Option<A>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let mut answers = grpc.server_streaming(Request::new(question), path, ProstCodec::<Q, A>::default()).await?.into_inner();
        answers.message().await
    }

    /// Whether a request with an API key may pass: the code of the decision.
    pub async fn check(&self, key: &str, padding: usize, timeout: Option<Duration>) -> Result<i32, Status> {
        let answer: CheckResponse = self.call(CHECK, check(key, padding), timeout).await?;
        Ok(answer.status.map_or(0, |s| s.code))
    }

    pub async fn should_rate_limit(&self, value: &str) -> Result<i32, Status> {
        let answer: RateLimitResponse = self.call(SHOULD_RATE_LIMIT, user(value), None).await?;
        Ok(answer.overall_code)
    }

    pub async fn health(&self) -> Result<i32, Status> {
        let answer: HealthCheckResponse = self.call(HEALTH, HealthCheckRequest::default(), None).await?;
        Ok(answer.status)
    }
}
