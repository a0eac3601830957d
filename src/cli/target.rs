//! `rollout web`, `rollout/web`, `web`: the object a verb is about.
use anyhow::{Result, bail};

/// Words for the kind, as `kubectl` knows them.
const WORDS: [&str; 4] = ["rollout", "rollouts", "bro", "rollouts.baton.dev"];

/// The name in these words; the kind may be left out.
pub(super) fn name_of(words: &[String]) -> Result<String> {
    let words: Vec<&str> = words.iter().flat_map(|word| word.split('/')).collect();
    match words.as_slice() {
        [kind] if WORDS.contains(kind) => {
            bail!("name a Rollout; `kubectl get rollouts.baton.dev` lists them")
        }
        [name] => Ok((*name).to_owned()),
        [kind, name] if WORDS.contains(kind) => Ok((*name).to_owned()),
        [kind, _] => bail!("this plugin knows no \"{kind}\": write `rollout NAME`"),
        _ => bail!("one Rollout at a time: write `rollout NAME`"),
    }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn the_kind_may_be_left_out() {
        let name = |words: &[&str]| name_of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        for words in [&["rollout", "web"][..], &["rollouts.baton.dev/web"], &["bro", "web"], &["web"]] {
            assert_eq!(name(words).unwrap(), "web", "{words:?}");
        }
        assert!(name(&["rollout"]).unwrap_err().to_string().contains("kubectl get rollouts.baton.dev"));
        assert!(name(&["deployment", "web"]).unwrap_err().to_string().contains("deployment"));
        assert!(name(&["rollout", "web", "api"]).is_err());
    }
}
