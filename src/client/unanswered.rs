//! Why there is no answer.
use std::time::Duration;

use kube::client::AuthError;
use thiserror::Error;

use super::Ours;

/// How long one answer may take.
const ANSWER_SECONDS: u64 = 30;

/// The longest time until a connection stands, or an answer is there.
pub(super) const PATIENCE: Duration = Duration::from_secs(ANSWER_SECONDS);

/// The API server has not answered in time.
#[derive(Debug, Error)]
#[error("the API server has not answered within {ANSWER_SECONDS} s; try `kubectl get --raw /readyz`")]
pub struct Late;

/// A kind of Baton's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `rollouts.baton.dev`
    Rollout,
    /// `listenersets.baton.dev`
    ListenerSet,
}

/// Why a question has no answer. It is no [`std::error::Error`]: a person must be told what to do about it, and only who asks
/// knows how that person works.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing has come.
    Late(Late),
    /// The API server refuses, or cannot be reached.
    Refused {
        /// What it was about, or to what it belongs.
        kind: Kind,
        /// None: about more than one object.
        name: Option<String>,
        /// As it came; before it is printed: [`without_secrets`].
        error: kube::Error,
    },
    /// The object has come, without the fields that every object has.
    Unreadable(Kind),
}

impl From<Late> for Unanswered {
    fn from(late: Late) -> Self {
        Self::Late(late)
    }
}

/// Gives up on an answer that does not come.
///
/// # Errors
/// [`Late`] after 30 s.
pub async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, Late> {
    tokio::time::timeout(PATIENCE, answer).await.map_err(|_| Late)
}

/// The answer to a question about the object `name` of kind `K`, or about what belongs to such objects.
///
/// # Errors
/// [`Unanswered`]: too late, refused, or not reached.
pub async fn asked<K: Ours, T>(
    name: Option<&str>,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, Unanswered> {
    let answer = in_time(answer).await?;
    answer.map_err(|error| Unanswered::Refused { kind: K::KIND, name: name.map(str::to_owned), error })
}

/// What went wrong, without what a credential program has printed or was given, and without the password of a proxy.
pub fn without_secrets(error: &kube::Error) -> String {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |cause| cause.source());
    if let Some(error) = causes.find_map(|cause| cause.downcast_ref::<AuthError>()) {
        return match error {
            AuthError::AuthExecRun { out, .. } => {
                format!("its credential program failed ({}): run it by hand to see why", out.status)
            }
            AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => {
                "its credential program printed no ExecCredential".into()
            }
            AuthError::AuthExecStart(error) => format!("its credential program cannot be started: {error}"),
            AuthError::ReadTokenFile(error, path) => format!("its token file {}: {error}", path.display()),
            _ => "the credentials of its user cannot be obtained".into(),
        };
    }
    match error {
        kube::Error::ProxyProtocolDisabled { .. } | kube::Error::ProxyProtocolUnsupported { .. } => {
            "proxy-url or HTTPS_PROXY is set, and this program cannot use a proxy: unset it".into()
        }
        error => {
            let causes = std::iter::successors(Some(error as &dyn std::error::Error), |cause| cause.source());
            let mut said: Vec<String> = causes.map(ToString::to_string).collect();
            // Many errors repeat their cause.
            said.dedup_by(|cause, error| error.ends_with(cause.as_str()));
            said.join(": ")
        }
    }
}
