//! `rollout web`, `rollout/web`, `web`, `instances web`, `listenerset bots`: the object a verb is about.
use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::exit::Exit;

/// Words for the kinds, as `kubectl` knows them.
const ROLLOUT: [&str; 4] = ["rollout", "rollouts", "bro", "rollouts.baton.dev"];
const LISTENER_SET: [&str; 4] = ["listenerset", "listenersets", "bls", "listenersets.baton.dev"];

const INSTANCES: [&str; 2] = ["instances", "instance"];

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Rollout(String),
    /// Of the Rollout of this name.
    Instances(String),
    ListenerSet(String),
}

/// The Rollout that a verb is about.
#[derive(Debug)]
pub(super) struct RolloutTarget {
    target: Vec<String>,
}

/// By hand: clap has no word that may stand before a required one, with flags in between.
impl Args for RolloutTarget {
    fn augment_args(verb: Command) -> Command {
        let usage = format!("kubectl baton {} [OPTIONS] [rollout] <NAME>", verb.get_name());
        let target = Arg::new("target").required(true).num_args(1..=2).action(ArgAction::Append);
        verb.override_usage(usage).arg(target.value_name("NAME").help("Name of the Rollout"))
    }

    fn augment_args_for_update(verb: Command) -> Command {
        Self::augment_args(verb)
    }
}

impl FromArgMatches for RolloutTarget {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { target: matches.get_many("target").into_iter().flatten().cloned().collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl RolloutTarget {
    /// Whether this word names the kind and not an object.
    pub fn is_kind(word: &str) -> bool {
        ROLLOUT.contains(&word)
    }

    pub fn of(target: Vec<String>) -> Self {
        Self { target }
    }

    /// Its name.
    pub fn name(&self) -> Result<String> {
        name_of(&self.target)
    }
}

/// These words name no Rollout, but the kind.
pub(super) fn is_plural(words: &[String]) -> bool {
    matches!(words, [kind] if ROLLOUT.contains(&kind.as_str()))
}

/// The object in these words; `rollout` may be left out.
pub(super) fn target_of(words: &[String]) -> Result<Target> {
    let words: Vec<&str> = words.iter().flat_map(|word| word.split('/')).collect();
    match words.as_slice() {
        [kind] if ROLLOUT.contains(kind) || INSTANCES.contains(kind) => {
            Err(Exit::Usage.because("name a Rollout; `kubectl baton list` lists them"))
        }
        [kind] if LISTENER_SET.contains(kind) => {
            Err(Exit::Usage.because("name a ListenerSet; `kubectl get listenersets.baton.dev` lists them"))
        }
        [name] => Ok(Target::Rollout((*name).to_owned())),
        [kind, name] if ROLLOUT.contains(kind) => Ok(Target::Rollout((*name).to_owned())),
        [kind, name] if INSTANCES.contains(kind) => Ok(Target::Instances((*name).to_owned())),
        [kind, name] if LISTENER_SET.contains(kind) => Ok(Target::ListenerSet((*name).to_owned())),
        [kind, _] => Err(Exit::Usage.because(format!(
            "this plugin knows no \"{kind}\": write `rollout NAME`, `instances NAME` or `listenerset NAME`"
        ))),
        _ => {
            Err(Exit::Usage
                .because("one object at a time: write `rollout NAME`, `instances NAME` or `listenerset NAME`"))
        }
    }
}

/// The name of the Rollout in these words; the kind may be left out.
pub(super) fn name_of(words: &[String]) -> Result<String> {
    match target_of(words)? {
        Target::Rollout(name) => Ok(name),
        Target::Instances(name) => {
            Err(Exit::Usage.because(format!("this is about whole Rollouts: write `rollout {name}`")))
        }
        Target::ListenerSet(name) => Err(Exit::Usage.because(format!(
            "this is about Rollouts only; `kubectl baton get listenerset {name}` shows a ListenerSet"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{super::Cli, Target, name_of, target_of};

    /// Verbs that are about something else.
    const OTHERS: [&str; 7] = ["get", "list", "plan", "set", "completion", "__complete", "version"];

    #[test]
    fn usage_is_as_of_kubectl() {
        let mut cli = Cli::command();
        for verb in cli.get_subcommands_mut().filter(|verb| !OTHERS.contains(&verb.get_name())) {
            let expected = format!("Usage: kubectl baton {} [OPTIONS] [rollout] <NAME>", verb.get_name());
            assert_eq!(verb.render_usage().to_string(), expected);
        }
        let usage = Cli::try_parse_from(["kubectl-baton", "get", "--help"]).unwrap_err().to_string();
        assert!(usage.contains("kubectl baton get [OPTIONS] [rollout|instances|listenerset] <NAME>\n"), "{usage}");
    }

    #[test]
    fn flags_may_stand_between_kind_and_name() {
        for words in
            ["status web -n shop", "status -n shop rollout web", "status rollout -n shop web", "get bls -w bots"]
        {
            Cli::try_parse_from(["kubectl-baton"].into_iter().chain(words.split(' '))).unwrap();
        }
        for words in ["status", "status a b c", "unpin web"] {
            Cli::try_parse_from(["kubectl-baton"].into_iter().chain(words.split(' '))).unwrap_err();
        }
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_kind_may_be_left_out() {
        let name = |words: &[&str]| name_of(&owned(words));
        for words in [&["rollout", "web"][..], &["rollouts.baton.dev/web"], &["bro", "web"], &["web"]] {
            assert_eq!(name(words).unwrap(), "web", "{words:?}");
        }
        assert!(name(&["rollout"]).unwrap_err().to_string().contains("kubectl baton list"));
        assert!(name(&["deployment", "web"]).unwrap_err().to_string().contains("deployment"));
        assert!(name(&["rollout", "web", "api"]).is_err());
        assert!(name(&["instances", "web"]).unwrap_err().to_string().contains("write `rollout web`"));
        assert!(name(&["bls", "bots"]).unwrap_err().to_string().contains("get listenerset bots"));
    }

    #[test]
    fn instances_are_named_by_their_rollout() {
        assert_eq!(target_of(&owned(&["instances", "web"])).unwrap(), Target::Instances("web".into()));
        assert!(target_of(&owned(&["instances"])).is_err());
    }

    #[test]
    fn a_listener_set_is_named_by_its_kind() {
        for words in [&["listenerset", "bots"][..], &["listenersets.baton.dev/bots"], &["bls/bots"]] {
            assert_eq!(target_of(&owned(words)).unwrap(), Target::ListenerSet("bots".into()), "{words:?}");
        }
        let unnamed = target_of(&owned(&["bls"])).unwrap_err().to_string();
        assert!(unnamed.contains("kubectl get listenersets.baton.dev"), "{unnamed}");
    }
}
