//! A tree of things with a state.
use jiff::Timestamp;

/// How a state is meant; faces give it a sign and a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Something is wrong.
    Bad,
    /// Being worked on.
    Working,
    /// Waits: for a person, a clock, its end.
    Waiting,
    /// Neither good nor bad.
    Neutral,
}

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// The Rollout itself.
    Rollout,
    /// A ControllerRevision.
    Revision,
    /// A batch, or several of them in one.
    Batch,
    /// A Pod.
    Pod,
    /// An instance without a Pod.
    Instance,
    /// A number of Pods or listeners that are not listed.
    Others,
    /// A ListenerSet.
    ListenerSet,
    /// A listener.
    Listener,
    /// A hook of the present run.
    Hook,
}

/// One line of a tree, and what is below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it stands for.
    pub thing: Thing,
    /// Its name.
    pub name: String,
    /// How its state is meant; None where there is nothing to say.
    pub tone: Option<Tone>,
    /// Its state in a word or two.
    pub status: String,
    /// Since when it exists.
    pub created: Option<Timestamp>,
    /// More about it.
    pub info: String,
    /// Where a Pod runs: node and IP, as far as known.
    pub place: (String, String),
    /// What is below it.
    pub children: Vec<Node>,
}

impl Node {
    /// A node without state or children.
    pub fn new(thing: Thing, name: impl Into<String>) -> Self {
        Self {
            thing,
            name: name.into(),
            tone: None,
            status: String::new(),
            created: None,
            info: String::new(),
            place: Default::default(),
            children: Vec::new(),
        }
    }

    /// With this state.
    #[must_use]
    pub fn state(self, tone: Tone, status: impl Into<String>) -> Self {
        Self { tone: Some(tone), status: status.into(), ..self }
    }

    /// With more about it.
    #[must_use]
    pub fn info(self, info: impl Into<String>) -> Self {
        Self { info: info.into(), ..self }
    }
}
