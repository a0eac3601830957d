//! Errors that say what to do next.
use anyhow::{Error, anyhow};
use kube::{Api, api::ListParams, core::Status};

use super::{Connection, exit::Exit};
use crate::{
    api::{ListenerSet, Rollout},
    client::{Cluster, Kind, Ours, Unanswered, in_time, is_seen, without_secrets},
    command::shell_word,
    snapshot::template::Verdict,
};

/// Names this similar are offered.
const SIMILAR_MIN: f64 = 0.6;
/// Names offered at most.
const OFFERED_MAX: usize = 3;

/// The message, with the commands in its backticks as they are to be typed: they go to the cluster and the namespace that the
/// user has said.
pub(super) fn addressed(message: &str, connection: &Connection) -> String {
    let parts: Vec<&str> = message.split('`').collect();
    let last = parts.len() - 1;
    let parts = parts.into_iter().enumerate().map(|(index, part)| {
        let is_command = index > 0 && index < last && part.starts_with("kubectl ");
        if is_command { format!("{part}{}", flags(part, connection)) } else { part.to_owned() }
    });
    parts.collect::<Vec<_>>().join("`")
}

/// What the user has said of where, as far as it is of use to this command.
fn flags(command: &str, connection: &Connection) -> String {
    let is_about_kubeconfig = command.starts_with("kubectl config ");
    let has_namespace = [" -n ", " -A"].iter().any(|flag| command.contains(flag));
    let namespace = connection.namespace.clone().filter(|_| !is_about_kubeconfig && !has_namespace);
    let context = connection.context.clone().filter(|_| !is_about_kubeconfig);
    let kubeconfig = connection.kubeconfig.as_ref().map(|path| path.display().to_string());
    let all = [("-n", namespace), ("--context", context), ("--kubeconfig", kubeconfig)];
    all.into_iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", shell_word(&value?)))).collect()
}

/// Where to look while no operator has taken note of this object as it is now.
pub(super) fn unseen(object: &impl Ours) -> Option<String> {
    let metadata = object.meta();
    let generation = metadata.generation.filter(|_| !is_seen(object))?;
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    Some(format!(
        "no operator has seen generation {generation} of {} yet: `kubectl get deployments -A -l app.kubernetes.io/name=baton` tells whether one runs; it must serve namespace {}",
        name(&metadata.name),
        name(&metadata.namespace)
    ))
}

/// The answer, or an error that says what to do.
pub(super) async fn explained<T>(
    cluster: &Cluster,
    answer: impl Future<Output = Result<T, Unanswered>>,
) -> Result<T, Error> {
    match answer.await {
        Ok(answer) => Ok(answer),
        Err(why) => Err(explain(cluster, why).await),
    }
}

/// What it means for the person who asked, and what to do.
pub(super) async fn explain(cluster: &Cluster, why: Unanswered) -> Error {
    match why {
        Unanswered::Late(late) => late.into(),
        Unanswered::Unreadable(kind) => anyhow!("the {kind:?} cannot be read"),
        Unanswered::Refused { kind: Kind::Rollout, name, error } => {
            refusal::<Rollout>(cluster, error, name.as_deref()).await
        }
        Unanswered::Refused { kind: Kind::ListenerSet, name, error } => {
            refusal::<ListenerSet>(cluster, error, name.as_deref()).await
        }
    }
}

/// What the API server's refusal means for a person who asked for the object `name`, or for what belongs to it.
async fn refusal<K: Ours>(cluster: &Cluster, error: kube::Error, name: Option<&str>) -> Error {
    match error {
        kube::Error::Api(status) => match (status.code, name) {
            // A missing object is described in `details`; a missing kind is not.
            (404, _) if status.details.is_none() => Exit::NotFound.because(format!(
                "the cluster does not know {kind}s ({plural}.baton.dev): install Baton's CRDs first, `kubectl apply -f crds/` or the Helm chart",
                kind = K::kind(&()),
                plural = K::plural(&())
            )),
            (404, Some(name)) => Exit::NotFound.because(not_found::<K>(cluster, name).await),
            (401, _) => Exit::NoAccess.because(unknown(said(&status))),
            // A policy's refusal is about what was asked for, not about who asked.
            (403, _) if Verdict::of_refusal(403, &status.message) == Verdict::Refused => anyhow!("{}", said(&status)),
            (403, _) => Exit::NoAccess.because(forbidden(&cluster.namespace, said(&status))),
            (429 | 500..=599, _) => {
                Exit::NoAccess.because(format!("the API server cannot answer now: {}", said(&status)))
            }
            _ => anyhow!("{}", said(&status)),
        },
        error @ (kube::Error::Service(_) | kube::Error::HyperError(_)) => Exit::NoAccess.because(format!(
            "the API server cannot be reached; `kubectl cluster-info` tells whether the cluster is up: {}",
            without_secrets(&error)
        )),
        error => Exit::NoAccess.because(without_secrets(&error)),
    }
}

/// The API server does not take these credentials, or does not take them any more.
pub(super) fn unknown(said: &str) -> String {
    format!("the API server does not know you ({said}): renew your credentials")
}

/// The API server's refusal, and how to get what is missing.
pub(super) fn forbidden(namespace: &str, said: &str) -> String {
    let remedy = if said.contains("\"leases\"") {
        "who holds what is in the Leases: it takes get, list and watch on leases.coordination.k8s.io, which `kubectl create role` and `kubectl create rolebinding` give".into()
    } else {
        format!(
            "`kubectl auth can-i --list -n {namespace}` shows what you may do; the ClusterRole baton-rollouts-operate gives what the verbs of this plugin need, and who changes what Pods run needs the right to create pods besides"
        )
    };
    format!("{said}; {remedy}")
}

/// The API server's sentence; of a refused patch without the whole object that it quotes.
fn said(status: &Status) -> &str {
    const QUOTES_THE_OBJECT: &str = "strict decoding error: ";
    match status.message.rfind(QUOTES_THE_OBJECT) {
        _ if status.message.is_empty() => &status.reason,
        Some(at) => &status.message[at + QUOTES_THE_OBJECT.len()..],
        None => &status.message,
    }
}

/// The object is in another namespace, or called a little differently; both are common.
async fn not_found<K: Ours>(cluster: &Cluster, name: &str) -> String {
    let namespace = &cluster.namespace;
    let plural = format!("{}.baton.dev", K::plural(&()));
    let missing = format!("{plural} \"{name}\" not found in namespace \"{namespace}\"");
    let here = in_time(cluster.api::<K>().list_metadata(&ListParams::default().limit(500))).await;
    let here: Vec<String> = match here {
        Ok(Ok(list)) => list.items.into_iter().filter_map(|object| object.metadata.name).collect(),
        _ => Vec::new(),
    };
    let near = nearest(name, &here);
    if !near.is_empty() {
        return format!("{missing}; did you mean {}?", near.join(" or "));
    }
    let everywhere: Api<K> = Api::all(cluster.client.clone());
    let named = ListParams::default().fields(&format!("metadata.name={name}")).limit(500);
    let elsewhere: Vec<String> = match in_time(everywhere.list_metadata(&named)).await {
        Ok(Ok(list)) => list.items.into_iter().filter_map(|object| object.metadata.namespace).collect(),
        _ => Vec::new(),
    };
    match elsewhere.first() {
        Some(other) => format!("{missing}; there is one in namespace \"{other}\": add -n {other}"),
        None if here.is_empty() => format!("{missing}, nor any other; `kubectl get {plural} -A` lists all"),
        None if here.len() <= OFFERED_MAX => format!("{missing}; there is {}", here.join(", ")),
        None => format!("{missing}; `kubectl get {plural} -n {namespace}` lists those there"),
    }
}

/// The names most like `name`, best first.
fn nearest(name: &str, known: &[String]) -> Vec<String> {
    let mut scored: Vec<(f64, &String)> = known.iter().map(|other| (likeness(name, other), other)).collect();
    scored.retain(|(score, _)| *score >= SIMILAR_MIN);
    scored.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.cmp(y)));
    scored.into_iter().take(OFFERED_MAX).map(|(_, name)| name.clone()).collect()
}

fn likeness(a: &str, b: &str) -> f64 {
    if a.len() >= 3 && (a.starts_with(b) || b.starts_with(a)) {
        return 0.9;
    }
    strsim::normalized_damerau_levenshtein(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(namespace: Option<&str>, context: Option<&str>, kubeconfig: Option<&str>) -> Connection {
        let [namespace, context] = [namespace, context].map(|word| word.map(str::to_owned));
        Connection { namespace, context, kubeconfig: kubeconfig.map(Into::into), no_color: false }
    }

    /// A command that is copied from a message does not end up in another cluster.
    #[test]
    fn suggested_commands_go_where_the_users_own_went() {
        let message = "web: nothing has failed; `kubectl baton restart web` makes new Pods";
        assert_eq!(addressed(message, &connection(None, None, None)), message);
        let test = connection(Some("shop"), Some("test"), Some("my config"));
        assert_eq!(
            addressed(message, &test),
            "web: nothing has failed; `kubectl baton restart web -n shop --context test --kubeconfig 'my config'` makes new Pods"
        );
        let shop = connection(Some("shop"), None, Some("it's"));
        for (command, expected) in [
            ("kubectl get rollouts.baton.dev -A", r"kubectl get rollouts.baton.dev -A --kubeconfig 'it'\''s'"),
            ("kubectl auth can-i --list -n shop", r"kubectl auth can-i --list -n shop --kubeconfig 'it'\''s'"),
            ("kubectl config get-contexts", r"kubectl config get-contexts --kubeconfig 'it'\''s'"),
            ("rollout NAME", "rollout NAME"),
        ] {
            assert_eq!(addressed(&format!("a `{command}` b"), &shop), format!("a `{expected}` b"));
        }
        let nowhere = addressed("`kubectl config get-contexts`", &connection(None, Some("nowhere"), None));
        assert_eq!(nowhere, "`kubectl config get-contexts`", "that one is not there");
        let open = "the API server says ` and kubectl get pods";
        assert_eq!(addressed(open, &shop), open);
    }

    #[test]
    fn names_nearby_are_offered() {
        let known: Vec<String> = ["web", "website", "api", "backend"].map(Into::into).to_vec();
        assert_eq!(nearest("wbe", &known), ["web"]);
        assert_eq!(nearest("websit", &known), ["web", "website"]);
        assert_eq!(nearest("frontend", &known), Vec::<String>::new());
        assert_eq!(nearest("zzz", &[]), Vec::<String>::new());
    }
}
