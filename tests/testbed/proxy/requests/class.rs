//! What a request is, told from its first line.
use hyper::{Method, Uri};
use serde_json::Value;

/// As far as faults are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Anything but a GET, in words: `create pods web-0`. Events and dry runs are among them: each is a request that a
    /// program can die in.
    Write(String),
    /// Any request for a Lease: its traffic goes by time, not by work.
    Lease,
    Watch,
    Read,
}

impl Class {
    /// `body`: JSON, which names what a POST creates.
    pub fn of(method: &Method, uri: &Uri, body: &[u8]) -> Self {
        let path = Path::of(uri.path());
        let has = |word: &str| uri.query().unwrap_or_default().split('&').any(|pair| pair == word);
        if path.resource == "leases" {
            return Self::Lease;
        }
        if method == Method::GET || method == Method::HEAD {
            return if has("watch=true") || has("watch=1") { Self::Watch } else { Self::Read };
        }
        let verb = match method.as_str() {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            other => other,
        };
        let mut words = vec![verb.to_owned(), path.what()];
        words.extend(path.name.map(str::to_owned).or_else(|| name_in(body)));
        words.extend(uri.query().filter(|query| query.contains("dryRun=All")).map(|_| "(dry run)".to_owned()));
        Self::Write(words.join(" "))
    }
}

/// What is created, by its name; an Event by its reason, because its name says nothing.
fn name_in(body: &[u8]) -> Option<String> {
    let object: Value = serde_json::from_slice(body).ok()?;
    let said = object["reason"].as_str().filter(|_| object["kind"] == "Event");
    said.or(object["metadata"]["name"].as_str()).map(str::to_owned)
}

/// `/apis/GROUP/VERSION/namespaces/NAMESPACE/RESOURCE/NAME/SUBRESOURCE`, or `/api/VERSION/…`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Path<'a> {
    resource: &'a str,
    name: Option<&'a str>,
    subresource: Option<&'a str>,
}

impl<'a> Path<'a> {
    fn of(path: &'a str) -> Self {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (["api", _, rest @ ..] | ["apis", _, _, rest @ ..]) = parts.as_slice() else {
            return Self { resource: path, ..Self::default() };
        };
        let rest = match rest {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
            rest => rest,
        };
        let at = |index: usize| rest.get(index).copied();
        Self { resource: at(0).unwrap_or(path), name: at(1), subresource: at(2) }
    }

    fn what(&self) -> String {
        self.subresource.map_or_else(|| self.resource.to_owned(), |sub| format!("{}/{sub}", self.resource))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(method: &str, uri: &str, body: &str) -> Class {
        Class::of(&method.parse().unwrap(), &uri.parse().unwrap(), body.as_bytes())
    }

    #[test]
    fn leases_watches_and_reads_are_no_writes() {
        let lease = "/apis/coordination.k8s.io/v1/namespaces/a/leases/b";
        assert_eq!(class("PUT", lease, ""), Class::Lease);
        assert_eq!(class("GET", lease, ""), Class::Lease);
        assert_eq!(class("GET", "/api/v1/namespaces/a/pods?&watch=true&timeoutSeconds=290", ""), Class::Watch);
        assert_eq!(class("GET", "/api/v1/namespaces/a/pods?limit=500", ""), Class::Read);
        assert_eq!(class("GET", "/version", ""), Class::Read);
    }

    #[test]
    fn a_write_is_told_in_words() {
        let told = |method, uri, body| match class(method, uri, body) {
            Class::Write(what) => what,
            other => panic!("{other:?}"),
        };
        let pod = r#"{"kind":"Pod","metadata":{"name":"web-0-x"}}"#;
        assert_eq!(told("POST", "/api/v1/namespaces/a/pods?", pod), "create pods web-0-x");
        assert_eq!(told("POST", "/api/v1/namespaces/a/pods?dryRun=All", pod), "create pods web-0-x (dry run)");
        assert_eq!(told("DELETE", "/api/v1/namespaces/a/pods/web-0-x", ""), "delete pods web-0-x");
        let status = "/apis/baton.dev/v1alpha1/namespaces/a/rollouts/web/status?fieldManager=b";
        assert_eq!(told("PUT", status, "{}"), "update rollouts/status web");
        let event = r#"{"kind":"Event","reason":"Scaled","metadata":{"name":"web.17"}}"#;
        assert_eq!(told("POST", "/apis/events.k8s.io/v1/namespaces/a/events", event), "create events Scaled");
        assert_eq!(told("PATCH", "/api/v1/namespaces/a", ""), "patch namespaces a");
    }
}
