//! Where everything of one cluster lies, and its fixed addresses.
use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The API server's own address. Not a loopback one: EndpointSlices refuse those.
pub const APISERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 255, 1);
/// The ClusterIP of the Service `kubernetes`, at which Pods expect the API server (port 443).
pub const SERVICE_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// ClusterIPs are taken from here.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";

/// The paths of one cluster; `dir` is absolute.
#[derive(Clone, Debug)]
pub struct Layout {
    pub dir: PathBuf,
    /// `example.local/NAME:TAG` is the folder NAME/TAG of this one.
    pub images: PathBuf,
    /// Folder of the control plane's programs.
    pub bin: PathBuf,
    /// Port of the API server, the same inside and outside.
    pub port: u16,
}

impl Layout {
    /// An administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig(&self.dir)
    }

    /// Certificates, keys and the kubeconfigs of components: `DIR/pki/FILE`.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    /// State of a process node; holds its kubeconfig and serving certificate too.
    pub fn node(&self, name: &str) -> PathBuf {
        self.dir.join("node").join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// The data folder of etcd: a tmpfs in the cluster's own mount namespace, empty outside.
    pub fn etcd(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    pub fn kwok_config(&self) -> PathBuf {
        self.dir.join("kwok.yaml")
    }

    /// Forgets an earlier cluster in this folder, except its images, and makes the folders of a new one.
    pub fn prepare(&self) -> Result<()> {
        for folder in ["logs", "node", "pki"] {
            let path = self.dir.join(folder);
            if path.exists() {
                fs::remove_dir_all(&path).with_context(|| format!("cannot clear {}", path.display()))?;
            }
            private_folder(&path)?;
        }
        for folder in [self.images.clone(), self.etcd()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }
}

/// Removes what no later cluster in `dir` uses: keys, the nodes' state. Images and logs stay, unless everything is to go.
pub fn clear(dir: &Path, everything: bool) -> Result<()> {
    let always = ["node", "pki", "etcd"].as_slice();
    let others = ["images", "logs"].as_slice();
    for folder in always.iter().chain(others.iter().filter(|_| everything)) {
        let path = dir.join(folder);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Takes away what would only mislead once the cluster in `dir` is gone. Logs stay.
pub fn retire(dir: &Path) {
    for path in [kubeconfig(dir), crate::control_socket::path(dir)] {
        // Nothing to be done about a failure, and a later start replaces both.
        let _ = fs::remove_file(path);
    }
}

/// An administrator's kubeconfig of the cluster in `dir`.
pub fn kubeconfig(dir: &Path) -> PathBuf {
    dir.join("kubeconfig")
}

/// What the supervisor has said; of a cluster in the background, errors too.
pub fn supervisor_log(dir: &Path) -> PathBuf {
    dir.join("supervisor.log")
}

/// A path as a shell reads it: quoted where it has to be.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+,:=@%".contains(character);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Makes a folder that only its owner can read.
pub fn private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

/// Writes a file that only its owner can read; replaces an older one at once.
pub fn private_file(path: &Path, content: &str, mode: u32) -> Result<()> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(content.as_bytes())?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_not_take_it_as_it_is() {
        let word = |path: &str| shell_word(Path::new(path));
        assert_eq!(word("/srv/baton-1.0/target/cluster"), "/srv/baton-1.0/target/cluster");
        assert_eq!(word("/srv/my name"), "'/srv/my name'");
        assert_eq!(word("/a'b"), r"'/a'\''b'");
        assert_eq!(word("$HOME"), "'$HOME'");
    }
}
