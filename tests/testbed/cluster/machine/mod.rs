//! Real nodes: machines with a kubelet, containerd and runc, in namespaces of their own.
//!
//! ```text
//! PID 1 of the cluster
//!   ├─ machine-1       PID 1 of a PID namespace, with mounts of its own   (boot.rs)
//!   ├─ containerd-1    in that PID namespace and under those mounts       (inside.rs)
//!   └─ kubelet-1       likewise
//! ```
//! All machines share the cluster's network namespace, where each has a bridge with its Pods (`network.rs`). A machine
//! that ends takes its containers with it, as in a power cut; kubelet and containerd can die alone.
use std::{
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Result;
use nix::unistd::Pid;

mod boot;
pub mod cgroups;
mod configuration;
mod images;
mod inside;
mod requirements;

pub use boot::{Args as BootArgs, run as boot};
pub use images::{import, import_all};
pub use inside::{Args as InsideArgs, run as become_inside};
pub use requirements::{check, check_all};

use super::{
    certificates::Authority,
    kubeconfig,
    layout::{Layout, private_file, private_folder},
    processes::{Place, Spec},
};

/// Which containerd a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Containerd {
    /// Debian's 1.6.
    One,
    /// As released.
    Two,
}

/// Which containerd each machine runs, in the order of their numbers; the last one of the list counts for all further ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerds(Vec<Containerd>);

impl FromStr for Containerds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Containerds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|it| it.argument()).collect();
        f.write_str(&names.join(","))
    }
}

impl Containerds {
    /// That of a machine.
    fn of(&self, machine: Machine) -> Containerd {
        let index = usize::from(machine.number).saturating_sub(1);
        // One that is parsed from a text is never empty.
        self.0.get(index).or(self.0.last()).copied().unwrap_or(Containerd::Two)
    }
}

impl FromStr for Containerd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1" | "1.6" => Ok(Self::One),
            "2" => Ok(Self::Two),
            _ => Err(format!("no containerd {text:?}: there are 1.6 and 2")),
        }
    }
}

impl Containerd {
    /// As `--containerd` takes it.
    fn argument(self) -> &'static str {
        match self {
            Self::One => "1.6",
            Self::Two => "2",
        }
    }

    /// The folder with its programs.
    fn folder(self, bin: &Path) -> PathBuf {
        match self {
            Self::One => debian(bin).join("bin"),
            Self::Two => bin.to_owned(),
        }
    }
}

/// What was unpacked of Debian's packages.
fn debian(bin: &Path) -> PathBuf {
    bin.join("debian/usr")
}

/// One real node.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub number: u16,
    /// The third byte of its Pods' addresses.
    pub network: u16,
}

impl Machine {
    pub fn name(self) -> String {
        format!("machine-{}", self.number)
    }

    /// The kubelet's process, and the Node.
    pub fn kubelet(self) -> String {
        format!("kubelet-{}", self.number)
    }

    pub fn containerd(self) -> String {
        format!("containerd-{}", self.number)
    }

    /// The interface of its Pods.
    pub fn bridge(self) -> String {
        format!("pods-{}", self.number)
    }

    /// The node's address, which is the bridge's.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.network as u8, 1)
    }

    fn state(self, layout: &Layout) -> PathBuf {
        layout.node(&self.kubelet())
    }

    /// Its control group in each hierarchy.
    fn group(self, layout: &Layout) -> String {
        format!("{}/{}", cgroups::name(&layout.dir), self.kubelet())
    }

    fn spec(self, layout: &Layout, name: String, program: &Path, args: Vec<String>) -> Spec {
        let place = Place::Machine(self.name());
        Spec { program: program.to_owned(), args, log: layout.log(&name), name, essential: false, place }
    }

    /// The machine without programs; `program` is this one.
    pub fn power(self, layout: &Layout, program: &Path) -> Result<Spec> {
        let state = self.state(layout);
        for folder in boot::FOLDERS {
            private_folder(&state.join(folder.name))?;
        }
        let flags = [("state", state.display().to_string()), ("group", self.group(layout))];
        let flags = flags.into_iter().flat_map(|(flag, value)| [format!("--{flag}"), value]);
        let args = ["cluster".into(), "machine".into()].into_iter().chain(flags).collect();
        Ok(Spec { place: Place::NewMachine, ..self.spec(layout, self.name(), program, args) })
    }

    /// containerd, with its configuration.
    pub fn runtime(self, layout: &Layout, versions: &Containerds) -> Result<Spec> {
        let version = versions.of(self);
        let state = self.state(layout);
        let plugins = state.join("cni.d");
        private_folder(&plugins)?;
        private_file(&plugins.join("10-pods.conflist"), &configuration::network(self), 0o600)?;
        let file = state.join("containerd.toml");
        private_file(&file, &configuration::containerd(&layout.bin, &plugins, version), 0o600)?;
        // It looks for its shim and for runc there.
        let folders = [version.folder(&layout.bin), debian(&layout.bin).join("sbin")];
        let path = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
        let args = vec![
            format!("PATH={path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            version.folder(&layout.bin).join("containerd").display().to_string(),
            "--config".into(),
            file.display().to_string(),
        ];
        Ok(self.spec(layout, self.containerd(), Path::new("/usr/bin/env"), args))
    }

    /// The kubelet, with its configuration and everything it needs to be believed.
    pub fn node(self, layout: &Layout, authority: &Authority) -> Result<Spec> {
        let (name, state) = (self.kubelet(), self.state(layout));
        let user = format!("system:node:{name}");
        let kubeconfig = state.join("kubeconfig");
        kubeconfig::write(layout, &kubeconfig, &user, Some("system:nodes"), authority)?;
        let names = [name.clone(), self.address().to_string()];
        let serving = authority.server(&user, Some("system:nodes"), &names)?;
        private_file(&state.join("serving.crt"), &serving.certificate, 0o600)?;
        private_file(&state.join("serving.key"), &serving.key, 0o600)?;
        private_file(&state.join("ca.crt"), &authority.certificate(), 0o600)?;
        let file = state.join("kubelet.json");
        let group = format!("/{}", self.group(layout));
        private_file(&file, &configuration::kubelet(self, &state, &group), 0o600)?;
        let flags = [
            ("config", file.display().to_string()),
            ("kubeconfig", kubeconfig.display().to_string()),
            ("hostname-override", name.clone()),
            ("node-ip", self.address().to_string()),
            ("node-labels", "baton.dev/node=kubelet".into()),
        ];
        let args = flags.into_iter().map(|(flag, value)| format!("--{flag}={value}")).collect();
        Ok(self.spec(layout, name, &layout.bin.join("kubelet"), args))
    }
}

/// The command that runs a program in the machine whose PID 1 is `machine`.
pub fn inside(machine: Pid, spec: &Spec) -> Result<(PathBuf, Vec<String>)> {
    let program = std::env::current_exe()?;
    let mut args = vec!["cluster".into(), "inside".into(), "--machine".into(), machine.to_string(), "--".into()];
    args.push(spec.program.display().to_string());
    args.extend(spec.args.iter().cloned());
    Ok((program, args))
}
