//! What a cluster does otherwise than usual: flags of its components, and components it does without.
use std::str::FromStr;

use super::processes::Spec;

/// Arguments of `cluster up` that change its components.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Tuning {
    /// Give a component this flag, in the place of the one it has of that name: kube-controller-manager=--kube-api-qps=20.
    /// May be repeated.
    #[arg(long = "set", value_name = "COMPONENT=FLAG")]
    flags: Vec<ComponentFlag>,
    /// Do not start this component. May be repeated.
    #[arg(long, value_name = "COMPONENT")]
    without: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ComponentFlag {
    component: String,
    /// With its dashes.
    flag: String,
}

impl FromStr for ComponentFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').filter(|(_, flag)| flag.starts_with("--") && flag.contains('='));
        let (component, flag) = parts.ok_or_else(|| format!("{text:?} is not COMPONENT=--FLAG=VALUE"))?;
        Ok(Self { component: component.into(), flag: flag.into() })
    }
}

impl Tuning {
    /// The same, for another process of this program.
    pub fn arguments(&self) -> impl Iterator<Item = String> {
        let flags = self.flags.iter().flat_map(|it| ["--set".into(), format!("{}={}", it.component, it.flag)]);
        flags.chain(self.without.iter().flat_map(|it| ["--without".into(), it.clone()]))
    }

    /// How to run a component; nothing if it is not to run.
    pub fn of(&self, mut spec: Spec) -> Option<Spec> {
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        for ComponentFlag { flag, .. } in self.flags.iter().filter(|it| it.component == spec.name) {
            spec.args.retain(|present| name(present) != name(flag));
            spec.args.push(flag.clone());
        }
        (!self.without.contains(&spec.name)).then_some(spec)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cluster::processes::Place;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        tuning: Tuning,
    }

    fn tuning(arguments: &[&str]) -> Tuning {
        Cli::try_parse_from([&["up"], arguments].concat()).unwrap().tuning
    }

    fn spec(name: &str, args: &[&str]) -> Spec {
        let args = args.iter().map(|it| (*it).to_owned()).collect();
        Spec {
            name: name.into(),
            program: name.into(),
            args,
            log: "log".into(),
            essential: true,
            place: Place::Cluster,
        }
    }

    #[test]
    fn a_flag_takes_the_place_of_its_namesake() {
        let tuning = tuning(&["--set", "a=--qps=20", "--set", "a=--new=x=y", "--without", "b"]);
        let args = tuning.of(spec("a", &["--qps=200", "--qps-burst=400"])).unwrap().args;
        assert_eq!(args, ["--qps-burst=400", "--qps=20", "--new=x=y"]);
        assert!(tuning.of(spec("b", &[])).is_none());
        assert_eq!(tuning.of(spec("c", &["--qps=200"])).unwrap().args, ["--qps=200"]);
    }

    #[test]
    fn it_survives_being_handed_on() {
        let arguments = ["--set", "a=--qps=20", "--without", "b"];
        assert!(tuning(&arguments).arguments().eq(arguments));
        assert!(Cli::try_parse_from(["up", "--set", "a=qps"]).is_err());
    }
}
