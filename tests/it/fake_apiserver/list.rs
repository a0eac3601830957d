//! Lists: at which revision, how much at once, and where to go on.
use std::{fmt::Write as _, sync::Arc};

use hyper::body::Bytes;

use super::{kinds::Kind, object::Object, refusal::Refusal, selectors::Selector, store::Store};

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    pub selector: Selector,
    /// 0: everything.
    pub limit: usize,
    /// Empty: from the beginning.
    pub continue_: String,
    /// Empty: the latest. "0": whatever the server at hand knows.
    pub resource_version: String,
    /// `Exact`, `NotOlderThan` or empty.
    pub version_match: String,
}

/// One page.
#[derive(Clone, Debug)]
pub struct Page {
    pub objects: Vec<Arc<Object>>,
    /// Of all pages.
    pub revision: u64,
    /// Where the next begins; empty after the last.
    pub continue_: String,
    /// Objects on the pages to come, where that is told.
    pub remaining: Option<usize>,
}

impl ListQuery {
    /// One page of a kind's objects in a namespace (empty: all). `cached` is how far the server at hand has come.
    ///
    /// # Errors
    /// 400 for what makes no sense, 410 for what is compacted, 504 for what is yet to come.
    pub fn run(&self, store: &Store, kind: &'static Kind, namespace: &str, cached: u64) -> Result<Page, Refusal> {
        let (revision, after) = self.place(store, cached)?;
        let table = store
            .at(kind, revision)
            .map_err(|expired| if self.continue_.is_empty() { expired } else { continue_expired(&after) })?;
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let begin = if after.is_empty() { prefix.clone() } else { format!("{after}\0") };
        let mut rest = table.range(begin..).take_while(|(key, _)| key.starts_with(&prefix)).peekable();
        let mut page = Page { objects: Vec::new(), revision, continue_: String::new(), remaining: None };
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        while let Some((key, object)) = rest.next() {
            if self.selector.selects(object) {
                page.objects.push(object.clone());
            }
            // Whether what follows is selected is not known before the next page is asked for.
            if page.objects.len() == limit && rest.peek().is_some() {
                page.continue_ = format!("{revision}.{key}");
                page.remaining = self.selector.is_everything().then(|| rest.by_ref().count());
                break;
            }
        }
        Ok(page)
    }

    /// Revision, and the key after which this page begins.
    fn place(&self, store: &Store, cached: u64) -> Result<(u64, String), Refusal> {
        if !self.continue_.is_empty() {
            if !self.resource_version.is_empty() && self.resource_version != "0" {
                return Err(Refusal::bad_request("specifying resource version is not allowed when using continue"));
            }
            let place = self.continue_.split_once('.').and_then(|(at, key)| Some((at.parse().ok()?, key.to_owned())));
            let place: (u64, String) = place.ok_or_else(|| Refusal::bad_request("continue key is not valid"))?;
            // What an expired token was replaced by goes on at the latest.
            return Ok(if place.0 == 0 { (store.revision(), place.1) } else { place });
        }
        let wanted = parse_version(&self.resource_version)?;
        let is_exact = self.version_match == "Exact" || (self.version_match.is_empty() && self.limit > 0);
        match wanted {
            None => Ok((store.revision(), String::new())),
            Some(0) => Ok((cached.min(store.revision()), String::new())),
            Some(wanted) if wanted > store.revision() => Err(too_large(wanted, store.revision())),
            Some(wanted) if is_exact => Ok((wanted, String::new())),
            Some(wanted) => Ok((cached.clamp(wanted, store.revision()), String::new())),
        }
    }
}

/// None where it is empty.
pub fn parse_version(text: &str) -> Result<Option<u64>, Refusal> {
    let invalid =
        || Refusal::bad_request(format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: invalid syntax"));
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid()) }
}

fn too_large(wanted: u64, latest: u64) -> Refusal {
    let message = format!("Too large resource version: {wanted}, current: {latest}");
    let cause = serde_json::json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
    let details = serde_json::json!({"causes": cause, "retryAfterSeconds": 1});
    Refusal { details, ..Refusal::new(504, "Timeout", message) }
}

fn continue_expired(after: &str) -> Refusal {
    let refusal = Refusal::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    Refusal { continue_: format!("0.{after}"), ..refusal }
}

impl Page {
    /// As it goes over the wire.
    pub fn text(&self, kind: &Kind) -> Bytes {
        let size: usize = self.objects.iter().map(|object| object.text().len() + 1).sum();
        let mut text = String::with_capacity(size + 200);
        let (api_version, revision) = (kind.api_version(), self.revision);
        let _ = write!(text, r#"{{"kind":"{}List","apiVersion":"{api_version}","metadata":{{"#, kind.kind);
        let _ = write!(text, r#""resourceVersion":"{revision}""#);
        if !self.continue_.is_empty() {
            let _ = write!(text, r#","continue":"{}""#, self.continue_);
        }
        if let Some(remaining) = self.remaining {
            let _ = write!(text, r#","remainingItemCount":{remaining}"#);
        }
        text.push_str(r#"},"items":["#);
        for (index, object) in self.objects.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(std::str::from_utf8(object.text()).unwrap_or("null"));
        }
        text.push_str("]}");
        Bytes::from(text)
    }
}
