//! Label and field selectors.
use serde_json::Value;

use super::refusal::Refusal;

/// Which objects a list or watch shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

/// Fields that can be selected by, as paths.
const FIELDS: [(&str, &str); 6] = [
    ("metadata.name", "/metadata/name"),
    ("metadata.namespace", "/metadata/namespace"),
    ("spec.nodeName", "/spec/nodeName"),
    ("status.phase", "/status/phase"),
    ("involvedObject.name", "/involvedObject/name"),
    ("reason", "/reason"),
];

impl Selector {
    /// From the two parameters of a request; empty selects everything.
    ///
    /// # Errors
    /// 400 for what cannot be read, or a field that cannot be selected by.
    pub fn parse(labels: &str, fields: &str) -> Result<Self, Refusal> {
        let labels = split(labels).map(requirement).collect::<Result<_, _>>()?;
        let fields = fields.split(',').filter(|term| !term.is_empty()).map(field).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// True when it selects everything.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// True when it selects this object.
    pub fn selects(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|requirement| requirement.holds(labels))
            && self.fields.iter().all(|(path, equal, value)| {
                let found = object.pointer(path).and_then(Value::as_str).unwrap_or_default();
                (found == value) == *equal
            })
    }
}

impl Requirement {
    fn holds(&self, labels: &Value) -> bool {
        let value = |key: &str| labels.get(key).and_then(Value::as_str);
        match self {
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
            Self::In(key, values) => value(key).is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Self::NotIn(key, values) => value(key).is_none_or(|value| values.iter().all(|wanted| wanted != value)),
        }
    }
}

/// At commas, but not at those in parentheses.
fn split(selector: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let terms = selector.split(move |c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    });
    terms.map(str::trim).filter(|term| !term.is_empty())
}

fn requirement(term: &str) -> Result<Requirement, Refusal> {
    let set = |rest: &str| -> Option<Vec<String>> {
        let inner = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    let unreadable = || Refusal::bad_request(format!("unable to parse requirement: {term:?}"));
    if let Some((key, rest)) = term.split_once(" notin ") {
        return Ok(Requirement::NotIn(key.trim().into(), set(rest).ok_or_else(unreadable)?));
    }
    if let Some((key, rest)) = term.split_once(" in ") {
        return Ok(Requirement::In(key.trim().into(), set(rest).ok_or_else(unreadable)?));
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key.trim().into(), vec![value.trim().into()]));
    }
    if let Some((key, value)) = term.split_once('=') {
        return Ok(Requirement::In(key.trim().into(), vec![value.trim_start_matches('=').trim().into()]));
    }
    match term.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(key.trim().into())),
        None if term.contains(char::is_whitespace) => Err(unreadable()),
        None => Ok(Requirement::Exists(term.into())),
    }
}

fn field(term: &str) -> Result<(String, bool, String), Refusal> {
    let (name, equal, value) = match (term.split_once("!="), term.split_once('=')) {
        (Some((name, value)), _) => (name, false, value),
        (None, Some((name, value))) => (name, true, value.trim_start_matches('=')),
        (None, None) => return Err(Refusal::bad_request(format!("invalid field selector: {term:?}"))),
    };
    let path = FIELDS.iter().find(|(known, _)| *known == name).map(|(_, path)| (*path).to_owned());
    let path = path.ok_or_else(|| Refusal::bad_request(format!("field label not supported: {name}")))?;
    Ok((path, equal, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_selected_in_every_way_there_is() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        let cases = [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=web,tier==front", true),
            ("app=web,tier=back", false),
            ("app!=web", false),
            ("other!=x", true),
            ("app in (web, api),tier notin (back)", true),
            ("app in (api)", false),
            ("other notin (a,b)", true),
        ];
        for (text, expected) in cases {
            assert_eq!(Selector::parse(text, "").unwrap().selects(&object), expected, "{text}");
        }
        assert_eq!(Selector::parse("app in web", "").unwrap_err().code, 400);
    }

    #[test]
    fn an_absent_field_is_empty() {
        let pod = json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}});
        let selects = |text: &str| Selector::parse("", text).unwrap().selects(&pod);
        assert!(selects("metadata.name=a,status.phase!=Failed,spec.nodeName="));
        assert!(!selects("spec.nodeName=n"));
        assert_eq!(Selector::parse("", "spec.secret=1").unwrap_err().code, 400);
    }
}
