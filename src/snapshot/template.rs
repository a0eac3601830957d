//! What the API server says of a revision's Pod template.
use jiff::Timestamp;

/// Verdict of a dry-run create of a Pod of some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateCheck {
    /// Accepted.
    Valid,
    /// Accepted, with a warning: of a field that the API server does not know, say, and that no Pod gets.
    Warned {
        /// The API server's sentences.
        message: String,
    },
    /// Refused for good (422, Pod security, a policy); asked again after `recheck_at`.
    Refused {
        /// The API server's sentence.
        message: String,
        /// When to ask again.
        recheck_at: Timestamp,
    },
    /// No verdict could be had (quota, overload, ServiceAccount missing); asked again after `recheck_at`.
    Unknown {
        /// The API server's sentence.
        message: String,
        /// When to ask again.
        recheck_at: Timestamp,
    },
}

/// Why no Pod can be made of a template, in a sentence: what Baton finds itself names the field, as the API server does.
pub fn refusal(message: &str) -> String {
    if [TEMPLATE, "spec.package"].iter().any(|field| message.starts_with(field)) {
        message.to_owned()
    } else {
        format!("{TEMPLATE}: the API server refuses its Pods: {message}")
    }
}

const TEMPLATE: &str = "spec.template";

/// What an answer to a dry-run create of a Pod says about its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would be accepted.
    Valid,
    /// It is refused until the template or a policy changes.
    Refused,
    /// Nothing: the answer is about the caller, or about the cluster's state of this minute (quota, load, a ServiceAccount
    /// or namespace that is not there).
    None,
}

impl Verdict {
    /// Of a refusal with this HTTP status (0: no answer) and sentence. The API server has no reason of its own for what a
    /// policy refuses; its sentences are all there is.
    pub fn of_refusal(code: u16, message: &str) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        match code {
            409 => Self::Valid, // it came as far as the store
            422 => Self::Refused,
            // Cannot be decoded as a Pod at all.
            400 if !says(&["does not support dry run"]) => Self::Refused,
            403 if says(&[
                "violates PodSecurity",
                "ValidatingAdmissionPolicy",
                "denied the request",
                "denied request",
            ]) =>
            {
                Self::Refused
            }
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_template_causes_is_a_verdict() {
        let webhook = "admission webhook \"a.example.com\" does not support dry run";
        let security = "pods \"web-0\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces";
        let policy = "pods \"web-0\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no";
        let denied = "admission webhook \"a.example.com\" denied the request: no";
        let quota = "pods \"web-0\" is forbidden: exceeded quota: pods, requested: pods=1";
        let rights = "pods is forbidden: User \"ann\" cannot create resource \"pods\" in API group \"\"";
        let account = "pods \"web-0\" is forbidden: error looking up service account shop/web: not found";
        for (code, message, verdict) in [
            (422, "Pod \"web-0\" is invalid: spec.containers: Required value", Verdict::Refused),
            (400, "Pod in version \"v1\" cannot be handled as a Pod", Verdict::Refused),
            (400, webhook, Verdict::None),
            (403, security, Verdict::Refused),
            (403, policy, Verdict::Refused),
            (403, denied, Verdict::Refused),
            (403, quota, Verdict::None),
            (403, rights, Verdict::None),
            (403, account, Verdict::None),
            (404, "namespaces \"shop\" not found", Verdict::None),
            (409, "pods \"web-0\" already exists", Verdict::Valid),
            (429, "too many requests", Verdict::None),
            (503, "not now", Verdict::None),
            (0, "no answer within 10 s", Verdict::None),
        ] {
            assert_eq!(Verdict::of_refusal(code, message), verdict, "{code} {message}");
        }
    }
}
