//! Tokens of a Pod's service account.
use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    host::{CALL_TIMEOUT, Host},
    model, store,
};

const DEFAULT_LIFE_SECONDS: i64 = 3600;
/// A token is replaced after this part of its life, in hundredths, as by the kubelet; or after a day.
const LIFE_PERCENT: i64 = 80;
const MAX_AGE_SECONDS: i64 = 24 * 3600;

/// A token, and how long it should be used.
pub struct Token {
    pub text: String,
    pub renew_in: Duration,
}

/// When a token that is in use wants to be replaced.
#[derive(Serialize, Deserialize)]
struct Schedule {
    renew_at: Timestamp,
}

/// The token at `path` of the Pod's volume if that is still good, or a new one.
pub async fn current(host: &Host, pod: &Pod, source: &ServiceAccountTokenProjection, path: &Path) -> Result<Token> {
    let now = Timestamp::now();
    let schedule = schedule_file(path);
    if let (Ok(Schedule { renew_at }), Ok(text)) = (store::read::<Schedule>(&schedule), fs::read_to_string(path))
        && renew_at > now
    {
        return Ok(Token { text, renew_in: Duration::try_from(renew_at.duration_since(now))? });
    }
    let (text, expires_at) = request(host, pod, source).await?;
    let life_seconds = expires_at.duration_since(now).as_secs();
    let renew_seconds = (life_seconds * LIFE_PERCENT / 100).clamp(1, MAX_AGE_SECONDS);
    let renew_in = Duration::from_secs(renew_seconds as u64);
    if let Some(folder) = schedule.parent() {
        fs::create_dir_all(folder)?;
    }
    store::write(&schedule, &Schedule { renew_at: now + renew_in })?;
    Ok(Token { text, renew_in })
}

/// Beside the volume, for a node that is started again.
fn schedule_file(path: &Path) -> std::path::PathBuf {
    let volume = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    volume.with_extension(format!("{name}.schedule"))
}

async fn request(host: &Host, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<(String, Timestamp)> {
    let spec = pod.spec.as_ref().context("a Pod without spec")?;
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    let request = TokenRequest {
        metadata: ObjectMeta::default(),
        spec: Some(TokenRequestSpec {
            audiences: source.audience.clone().filter(|audience| !audience.is_empty()).map(|audience| vec![audience]),
            expiration_seconds: Some(source.expiration_seconds.unwrap_or(DEFAULT_LIFE_SECONDS)),
            // The token dies with the Pod.
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(model::name(pod).to_owned()),
                uid: Some(model::uid(pod).to_owned()),
            }),
            ..TokenRequestSpec::default()
        }),
        status: None,
    };
    let accounts = Api::<ServiceAccount>::namespaced(host.client.clone(), model::namespace(pod));
    let params = PostParams::default();
    let answer = timeout(CALL_TIMEOUT, accounts.create_token_request(account, &params, &request)).await;
    let answer = answer.context("no answer in time")?.with_context(|| format!("no token for {account}"))?;
    let status = answer.status.context("an answer without a token")?;
    let expires_at = status.expiration_timestamp.context("an answer without a time")?;
    Ok((status.token.context("an answer without a token")?, expires_at.0))
}
