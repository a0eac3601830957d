//! What a child is told about its listener.

/// What the environment of a child says, besides the agent's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Name of the listener.
    pub listener: String,
    /// Its config as JSON.
    pub config: String,
    /// The fencing token of this start, to be passed on with what is written elsewhere.
    pub fence_token: String,
    /// Where to go on, as JSON. None: nobody has said.
    pub resume: Option<String>,
    /// How long connecting may take.
    pub connect_timeout_seconds: u32,
    /// Whether to go through the proxy.
    pub use_proxy: bool,
}

impl Environment {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_told() {
        let mut environment = Environment {
            listener: "listener1".into(),
            config: r#"{"feed":"a"}"#.into(),
            fence_token: "8c1e-4711".into(),
            resume: Some(r#"{"seq":7}"#.into()),
            connect_timeout_seconds: 30,
            use_proxy: true,
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
}
