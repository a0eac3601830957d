//! What a child is told about its listener.

use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct StartLine<'a> {
    start: Start<'a>,
}

#[derive(Serialize)]
struct Start<'a> {
    resume: Option<Box<RawValue>>,
    token: &'a str,
}

/// What a listener is told at its start. [`Self::variables`]: what the environment of a child says, besides the agent's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Name of its ListenerSet.
    pub set: String,
    /// Name of the listener.
    pub listener: String,
    /// Its config as JSON.
    pub config: String,
    /// The fencing token of this start, to be passed on with what is written elsewhere.
    pub fence_token: String,
    /// Where to go on, as JSON. None: no process has said it.
    pub resume: Option<String>,
    /// How long connecting may take.
    pub connect_timeout_seconds: u32,
    /// Whether to go through the proxy.
    pub use_proxy: bool,
    /// How long it has to stop once it is asked to.
    pub stop_timeout_seconds: u32,
}

impl Environment {
    /// Without what is known only once its turn has come.
    #[must_use]
    pub fn before_its_turn(&self) -> Self {
        // How long it has to stop no child is told.
        Self { fence_token: String::new(), resume: None, stop_timeout_seconds: 0, ..self.clone() }
    }

    /// What one that waits for its turn is told then, as a line of JSON: `{"start":{"resume":…,"token":"…"}}`.
    pub fn start_line(&self) -> String {
        let resume = self.resume.as_deref().and_then(on_one_line);
        let start = Start { resume, token: &self.fence_token };
        format!("{}\n", serde_json::to_string(&StartLine { start }).unwrap_or_default())
    }

    /// Names and values. Every name is always set, so that nothing is inherited from around the agent.
    pub fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("BATON_LISTENER", self.listener.clone()),
            ("BATON_LISTENER_CONFIG", self.config.clone()),
            ("BATON_FENCE_TOKEN", self.fence_token.clone()),
            ("BATON_RESUME", self.resume.clone().unwrap_or_default()),
            ("BATON_CONNECT_TIMEOUT_SECONDS", self.connect_timeout_seconds.to_string()),
            ("USE_PROXY", self.use_proxy.to_string()),
        ]
    }
}

/// The same JSON without line breaks, which it has only where blanks would do; otherwise as it was written: no digit of a
/// number is lost. None: it is empty, or no JSON at all.
pub fn on_one_line(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.replace(['\n', '\r'], " ")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_told() {
        let mut environment = Environment {
            set: "bots".into(),
            listener: "listener1".into(),
            config: r#"{"feed":"a"}"#.into(),
            fence_token: "8c1e-4711".into(),
            resume: Some(r#"{"seq":7}"#.into()),
            connect_timeout_seconds: 30,
            use_proxy: true,
            stop_timeout_seconds: 10,
        };
        let expected = [
            ("BATON_LISTENER", "listener1"),
            ("BATON_LISTENER_CONFIG", r#"{"feed":"a"}"#),
            ("BATON_FENCE_TOKEN", "8c1e-4711"),
            ("BATON_RESUME", r#"{"seq":7}"#),
            ("BATON_CONNECT_TIMEOUT_SECONDS", "30"),
            ("USE_PROXY", "true"),
        ];
        assert_eq!(environment.variables().each_ref().map(|(name, value)| (*name, value.as_str())), expected);
        environment.resume = None;
        environment.use_proxy = false;
        assert_eq!(environment.variables()[3], ("BATON_RESUME", String::new()));
        assert_eq!(environment.variables()[5], ("USE_PROXY", "false".into()));
    }

    #[test]
    fn its_turn_is_told_in_one_line() {
        let told = |resume: Option<&str>| {
            let task = Environment {
                set: "bots".into(),
                stop_timeout_seconds: 30,
                listener: "one".into(),
                config: "{}".into(),
                fence_token: "8c1e-4711".into(),
                resume: resume.map(str::to_owned),
                connect_timeout_seconds: 30,
                use_proxy: false,
            };
            let before = task.before_its_turn();
            assert_eq!((before.fence_token.as_str(), &before.resume, before.listener.as_str()), ("", &None, "one"));
            let sooner = Environment { stop_timeout_seconds: 7, ..task.clone() };
            assert_eq!(sooner.before_its_turn(), before, "no process is to start anew for that");
            task.start_line()
        };
        let line = |resume: &str| format!("{{\"start\":{{\"resume\":{resume},\"token\":\"8c1e-4711\"}}}}\n");
        let exact = r#"{"seq": 123456789012345678901}"#;
        assert_eq!(told(Some(exact)), line(exact));
        assert_eq!(told(Some("{\n\"a\":1}")), line("{ \"a\":1}"));
        for nothing in [None, Some(""), Some("no JSON")] {
            assert_eq!(told(nothing), line("null"));
        }
    }
}
