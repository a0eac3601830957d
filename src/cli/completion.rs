//! `completion SHELL`: scripts for shells; and the words that kubectl itself asks for (`kubectl_complete-baton`).
use std::time::Duration;

use anyhow::Result;
use clap::{Arg, Args, Command, CommandFactory, ValueEnum};
use clap_complete::shells;
use kube::api::ListParams;

use super::{Cli, Connection, kubeconfig, output::say, target::RolloutTarget};

/// Who waits for a Tab waits no longer.
const NAMES_WITHIN: Duration = Duration::from_secs(2);
/// Names that are offered at most.
const NAMES_MAX: u32 = 500;
/// kubectl reads it as: no names of files.
const NO_FILES: &str = ":4";

/// What kubectl runs to complete the words after `kubectl baton`.
const KUBECTL_SCRIPT: &str = "#!/bin/sh\n# As kubectl_complete-baton in PATH: kubectl completes `kubectl baton …` with it.\nexec kubectl-baton __complete \"$@\"";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum For {
    Bash,
    Zsh,
    Fish,
    /// The program kubectl_complete-baton, which kubectl calls to complete `kubectl baton`. Save it in PATH and make it
    /// executable.
    Kubectl,
}

/// `kubectl baton completion bash`
#[derive(Args, Debug)]
pub(super) struct Completion {
    /// Shell for which to print the script; it completes the program `kubectl-baton`. Or `kubectl`.
    #[arg(value_enum, value_name = "SHELL")]
    shell: For,
}

/// `kubectl-baton __complete get rollout w`
#[derive(Args, Debug)]
pub(super) struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl Completion {
    pub fn run(&self) {
        let (mut cli, mut out) = (Cli::command(), Vec::new());
        match self.shell {
            For::Bash => clap_complete::generate(shells::Bash, &mut cli, "kubectl-baton", &mut out),
            For::Zsh => clap_complete::generate(shells::Zsh, &mut cli, "kubectl-baton", &mut out),
            For::Fish => clap_complete::generate(shells::Fish, &mut cli, "kubectl-baton", &mut out),
            For::Kubectl => out.extend_from_slice(KUBECTL_SCRIPT.as_bytes()),
        }
        // `say` ends quietly where its reader has gone; clap_complete would panic.
        say(String::from_utf8_lossy(&out).trim_end());
    }
}

impl Words {
    pub async fn run(&self) {
        let found = match candidates(&self.words) {
            Found::Words(words) => words,
            Found::Names => {
                let names = tokio::time::timeout(NAMES_WITHIN, names(&self.words)).await;
                names.ok().and_then(Result::ok).unwrap_or_default()
            }
        };
        let begun = self.words.last().map(String::as_str).unwrap_or_default();
        found.iter().filter(|word| word.starts_with(begun)).for_each(|word| say(word));
        say(NO_FILES);
    }
}

/// What may stand in the place of the last word.
#[derive(Debug, PartialEq)]
enum Found {
    Words(Vec<String>),
    /// Names of Rollouts.
    Names,
}

fn candidates(words: &[String]) -> Found {
    let mut root = Cli::command();
    root.build();
    let mut verb = &root;
    let mut positions = 0;
    let mut flag: Option<&Arg> = None;
    let (begun, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    for word in before {
        if flag.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            flag = valued(verb, word);
        } else if let Some(sub) = verb.find_subcommand(word).filter(|_| positions == 0) {
            verb = sub;
        } else {
            positions += 1;
        }
    }
    let words = match flag {
        Some(flag) => flag.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect(),
        None if begun.starts_with('-') => {
            let long = verb.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long);
            long.map(|name| format!("--{name}")).collect()
        }
        None if verb.has_subcommands() && positions == 0 => {
            let shown = verb.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
            shown
                .flat_map(|sub| [sub.get_name()].into_iter().chain(sub.get_visible_aliases()))
                .map(str::to_owned)
                .collect()
        }
        None => match verb.get_positionals().next() {
            None => Vec::new(),
            // One name: the words after it are no names of Rollouts.
            Some(_) if positions > 1 || (positions == 1 && !ends_with_kind(before)) => Vec::new(),
            Some(position) if position.get_possible_values().is_empty() => return Found::Names,
            Some(position) => position.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect(),
        },
    };
    Found::Words(words)
}

/// `get rollout `: the name comes after the kind.
fn ends_with_kind(before: &[String]) -> bool {
    before.last().is_some_and(|word| RolloutTarget::is_kind(word))
}

/// The flag, if its value is the next word.
fn valued<'a>(verb: &'a Command, word: &str) -> Option<&'a Arg> {
    let is_it = |arg: &&Arg| {
        let long = arg.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
        long || arg.get_short().is_some_and(|short| word.strip_prefix('-') == Some(short.to_string().as_str()))
    };
    let takes =
        |arg: &&Arg| arg.get_action().takes_values() && arg.get_num_args().is_none_or(|count| count.min_values() > 0);
    verb.get_arguments().find(is_it).filter(takes)
}

/// Names of the Rollouts where these words say.
async fn names(words: &[String]) -> Result<Vec<String>> {
    let value = |flags: [&str; 2]| {
        let joined =
            |word: &String| word.split_once('=').filter(|(flag, _)| flags.contains(flag)).map(|(_, v)| v.to_owned());
        let next = || {
            let at = words.iter().position(|word| flags.contains(&word.as_str()))?;
            words.get(at + 1).cloned()
        };
        words.iter().find_map(joined).or_else(next)
    };
    let connection = Connection {
        namespace: value(["-n", "--namespace"]),
        context: value(["--context", "--context"]),
        kubeconfig: value(["--kubeconfig", "--kubeconfig"]).map(Into::into),
        no_color: true,
    };
    let cluster = kubeconfig::connect(&connection).await?;
    let found = cluster.rollouts().list_metadata(&ListParams::default().limit(NAMES_MAX)).await?;
    Ok(found.items.into_iter().filter_map(|object| object.metadata.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> Found {
        candidates(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn words(line: &str) -> Vec<String> {
        let Found::Words(words) = offered(line) else { panic!("{line}: names") };
        words
    }

    /// The last word is the one that is completed; empty at its beginning.
    #[test]
    fn verbs_flags_and_names_are_offered() {
        let verbs = words("");
        for verb in ["get", "list", "status", "approve", "promote", "set", "deploy", "completion"] {
            assert!(verbs.iter().any(|word| word == verb), "{verb}: {verbs:?}");
        }
        assert!(!verbs.iter().any(|word| word == "__complete"), "{verbs:?}");
        assert_eq!(words("-n shop set "), ["image"]);
        assert!(words("status web --").contains(&"--wait-for-approval".to_owned()));
        assert!(words("status --").contains(&"--namespace".to_owned()), "those of every verb, too");
        assert_eq!(words("get web -o "), ["wide", "json", "yaml", "name"]);
        assert_eq!(words("completion "), ["bash", "zsh", "fish", "kubectl"]);
        for line in ["approve web ", "set image web "] {
            assert_eq!(words(line), [""; 0], "{line}");
        }
        for line in ["status ", "status -n shop w", "get rollout ", "set image ", "undo --failed "] {
            assert_eq!(offered(line), Found::Names, "{line}");
        }
    }

    #[test]
    fn each_shell_has_a_script() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-baton", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("kubectl-baton") && script.contains("wait-for-approval"), "{script}");
        }
    }
}
