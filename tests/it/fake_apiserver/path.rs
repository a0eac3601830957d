//! Which object of which kind a path names, and what its query says.
use std::collections::BTreeMap;

use super::{kinds::Kind, refusal::Refusal};

/// A path, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    pub kind: &'static Kind,
    /// Empty: all, or none.
    pub namespace: String,
    /// Empty: the collection.
    pub name: String,
    /// `status`, `scale`, `resize` or empty.
    pub subresource: &'static str,
}

impl Path {
    /// `/api/v1/namespaces/shop/pods/web-0/status`.
    ///
    /// # Errors
    /// 404 for what is not served.
    pub fn parse(path: &str) -> Result<Self, Refusal> {
        Self::read(path)
            .ok_or_else(|| Refusal::new(404, "NotFound", "the server could not find the requested resource"))
    }

    fn read(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let (group, version) = match parts.next()? {
            "api" => ("", parts.next()?),
            "apis" => (parts.next()?, parts.next()?),
            _ => return None,
        };
        let rest: Vec<&str> = parts.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) => {
                (*namespace, rest)
            }
            rest => ("", rest),
        };
        let kind = Kind::find(group, version, rest.first()?)?;
        let subresource = match rest.get(2) {
            None => "",
            Some(&"status") => "status",
            Some(&"resize") if kind.resource == "pods" => "resize",
            Some(&"scale") if kind.has_scale => "scale",
            Some(_) => return None,
        };
        let name = rest.get(1).copied().unwrap_or_default();
        if rest.len() > 3 || !kind.is_namespaced && !namespace.is_empty() {
            return None;
        }
        Some(Self { kind, namespace: namespace.to_owned(), name: name.to_owned(), subresource })
    }
}

/// The query of a request, decoded.
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// `a=b&c=d`.
    pub fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(key, value)| (decoded(key), decoded(value))).collect())
    }

    /// Empty without it.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// True for `true` and `1`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    /// None without it.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name).parse().ok()
    }
}

/// Percent signs and pluses undone.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).unwrap_or_default();
                (digit(rest.next()) << 4 | digit(rest.next())) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_apiserver::kinds::{NAMESPACES, NODES, PODS, ROLLOUTS};

    #[test]
    fn paths_name_objects() {
        let path = |kind, namespace: &str, name: &str, subresource| {
            Some(Path { kind, namespace: namespace.into(), name: name.into(), subresource })
        };
        let rollouts = "/apis/baton.dev/v1alpha1/namespaces/shop/rollouts/web";
        assert_eq!(Path::read("/api/v1/pods"), path(&PODS, "", "", ""));
        assert_eq!(Path::read("/api/v1/namespaces/shop/pods/a/status"), path(&PODS, "shop", "a", "status"));
        assert_eq!(Path::read("/api/v1/namespaces/shop"), path(&NAMESPACES, "", "shop", ""));
        assert_eq!(Path::read("/api/v1/nodes/n"), path(&NODES, "", "n", ""));
        assert_eq!(Path::read(&format!("{rollouts}/scale")), path(&ROLLOUTS, "shop", "web", "scale"));
        assert_eq!(Path::read("/api/v1/namespaces/shop/pods/a/scale"), None);
        assert_eq!(Path::read("/apis/baton.dev/v1/rollouts"), None);
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("watch=true&labelSelector=a%3Db%2Cc+in+%28d%29&limit=5");
        assert_eq!(query.text("labelSelector"), "a=b,c in (d)");
        assert!(query.flag("watch") && query.number("limit") == Some(5) && query.text("none").is_empty());
    }
}
