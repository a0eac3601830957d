//! R10 of what an operator adopts.
use baton::api::names::LABEL_ROLLOUT;
use serde_json::Value;

use super::{Docket, story::owner};
use crate::fake_apiserver::{Commit, object::Object};

impl Docket {
    /// R10: what was left behind is taken as it is, by the Rollout that its label names, and not while that goes.
    pub(super) fn judge_adoption(&mut self, commit: &Commit) {
        let (Some(before), object) = (commit.change.before.as_ref(), &commit.change.object) else { return };
        let story = owner(object).and_then(|uid| self.stories.get(uid));
        let is_named = story.is_some_and(|story| object["metadata"]["labels"][LABEL_ROLLOUT] == *story.name);
        let is_going = story.is_some_and(|story| story.is_wanted(self.glass()).is_err());
        let is_as_it_was = is_the_same_but_its_owner(before, object);
        if !is_named || is_going || !is_as_it_was || before.is_terminating() {
            self.accuse("R10", format_args!("{} adopts {}", commit.who, object.name()));
        }
    }
}

/// Nothing differs but who controls it, and the resourceVersion.
fn is_the_same_but_its_owner(before: &Object, after: &Object) -> bool {
    let without = |object: &Object| {
        let mut value = object.value().clone();
        for field in ["ownerReferences", "resourceVersion"] {
            value["metadata"][field] = Value::Null;
        }
        value
    };
    without(before) == without(after)
}
