//! `baton-agent fetch`: the package of a Rollout, before the containers of its Pod start.
//!
//! - [`download`]: the archive, with resume and retries; [`secret`]: what its server asks for; [`roots`]: whom
//!   https trusts;
//! - [`unpack`]: tar.gz, tar.zst and zip, read; [`tree`]: what is in them, written below one folder and nowhere else;
//! - [`problem`]: what may go wrong, and whether another try could help.
//!
//! The volume, all of it this program's own:
//!
//! ```text
//! archive, archive.etag   what was fetched so far: a restarted container goes on from there
//! archive.sha256          what that came to: one that was ended while it unpacked fetches nothing again
//! unpacking/              not whole yet
//! package/files           what containers see
//! package/sha256          of the archive that it came from: it is fetched once a Pod
//! ```
mod download;
mod problem;
mod roots;
mod secret;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
#[cfg(test)]
mod unpack_tests;

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use reqwest::Url;
use sha2::{Digest, Sha256};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};

use self::{
    download::Download,
    problem::{Problem, local, rejected},
    secret::Secret,
    tree::Limits,
};
use crate::{
    api::fingerprint::hexadecimal,
    snapshot::{Fetched, package},
};

/// Where the kubelet looks for a container's last words.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// How long the server may give nothing before the package counts as unavailable: as long as an image may be.
const PATIENCE: Duration = Duration::from_mins(1);
/// Bytes of a URL in messages.
const URL_BYTES_MAX: usize = 200;
/// Bytes of what is said: the kubelet cuts off what is longer than 1 KiB, where a Pod has twelve containers.
const MESSAGE_BYTES_MAX: usize = 600;
/// Of every package.
const LIMITS: Limits =
    Limits { archive_bytes: package::ARCHIVE_BYTES_MAX, bytes: package::BYTES_MAX, entries: package::ENTRIES_MAX };

/// Downloads the package of a Rollout, verifies it and unpacks it: tar.gz, tar.zst or zip.
///
/// The result is written as JSON to the container's termination message. The archive may have at most 2 GiB; unpacked,
/// at most 8 GiB and 200,000 entries.
#[derive(Clone, Debug, clap::Args)]
pub struct Fetch {
    /// URL of the archive, http or https.
    #[arg(long)]
    url: String,
    /// Existing folder that nothing else uses, such as an emptyDir. The files are unpacked into package/files below it.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// SHA-256 that the archive must have. Any other archive is not unpacked.
    #[arg(long, value_name = "DIGITS")]
    sha256: Option<String>,
    /// Folder with the credentials for the URL: the file token, or the files username and password; and ca.crt if the
    /// server's certificate comes from a private authority.
    #[arg(long, value_name = "FOLDER")]
    secret: Option<PathBuf>,
}

impl Fetch {
    /// Fetches, and says what became of it.
    ///
    /// # Errors
    /// The package could not be had, or is not what it should be: told already.
    pub async fn run(self) -> anyhow::Result<()> {
        // The containers of a Pod need not share a user.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        // Process 1 of its container: without this the Pod could not be deleted meanwhile.
        let mut terminate = signal(SignalKind::terminate())?;
        let fetched = tokio::select! {
            fetched = self.fetch(PATIENCE, LIMITS) => fetched,
            _ = terminate.recv() => std::process::exit(143),
        };
        let words = serde_json::to_string(&fetched)?;
        fs::write(TERMINATION_LOG, words).with_context(|| format!("cannot write {TERMINATION_LOG}"))?;
        match fetched {
            Fetched::Unpacked { .. } => Ok(()),
            Fetched::Rejected { message } | Fetched::Unavailable { message } => bail!(message),
        }
    }

    async fn fetch(&self, patience: Duration, limits: Limits) -> Fetched {
        let url = match Url::parse(&self.url) {
            Ok(url) => url,
            Err(why) => return Fetched::Rejected { message: format!("package.url cannot be read: {why}") },
        };
        let named = |why: String| problem::clipped(&format!("package {}: {why}", shown(&url)), MESSAGE_BYTES_MAX);
        match self.steps(&url, patience, limits).await {
            Ok(sha256) => Fetched::Unpacked { sha256 },
            Err(Problem::Rejected(why)) => Fetched::Rejected { message: named(why) },
            Err(Problem::Unavailable(why) | Problem::Local(why)) => Fetched::Unavailable { message: named(why) },
        }
    }

    async fn steps(&self, url: &Url, patience: Duration, limits: Limits) -> Result<String, Problem> {
        let place = Place(self.to.clone());
        if let Some(sha256) = place.unpacked().filter(|found| self.sha256.as_ref().is_none_or(|wanted| wanted == found))
        {
            println!("{} is there already", shown(url));
            return Ok(sha256);
        }
        let (kept, wanted) = (place.clone(), self.sha256.clone());
        let is_whole = spawn_blocking(move || kept.is_whole(wanted.as_deref()));
        if !is_whole.await.map_err(local("cannot read the archive"))? {
            let secret = self.secret.as_deref().map(Secret::read).transpose()?.unwrap_or_default();
            if secret.is_sent() && !is_private(url) {
                return Err(rejected(
                    "package.secretRef needs an https URL, because http sends the credentials in clear text: set package.url to https or remove secretRef",
                ));
            }
            Download { url, secret: &secret, place: &place, patience, limits }.run().await?;
        }
        println!("verifying and unpacking");
        let wanted = self.sha256.clone();
        spawn_blocking(move || place.take(wanted.as_deref(), limits)).await.map_err(local("cannot unpack"))?
    }
}

/// Whether only the server hears what is sent there: nothing that is sent to the Pod itself leaves it.
fn is_private(url: &Url) -> bool {
    let host: Option<IpAddr> = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
    url.scheme() == "https" || host.is_some_and(|ip| ip.is_loopback())
}

/// The URL without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Neither fails for http.
    let _ = (url.set_username(""), url.set_password(None));
    problem::clipped(url.as_str(), URL_BYTES_MAX)
}

/// The folder that everything is in.
#[derive(Clone, Debug)]
struct Place(PathBuf);

impl Place {
    fn archive(&self) -> PathBuf {
        self.0.join("archive")
    }

    /// Which version of the archive it is that was fetched so far.
    fn etag(&self) -> PathBuf {
        self.0.join("archive.etag")
    }

    /// What the archive came to, once it was whole.
    fn sha256(&self) -> PathBuf {
        self.0.join("archive.sha256")
    }

    fn unpacking(&self) -> PathBuf {
        self.0.join(format!("{}.part", package::FOLDER))
    }

    fn package(&self) -> PathBuf {
        self.0.join(package::FOLDER)
    }

    /// SHA-256 of the archive whose files are there, if they are.
    fn unpacked(&self) -> Option<String> {
        fs::read_to_string(self.package().join(package::SHA256)).ok()
    }

    /// All of the archive is here, as its checksum proves.
    fn is_whole(&self, wanted: Option<&str>) -> bool {
        let noted = fs::read_to_string(self.sha256()).ok();
        let proof = wanted.or(noted.as_deref());
        proof.is_some_and(|proof| sha256_of(&self.archive()).is_ok_and(|found| found == proof))
    }

    /// Verifies the archive that was fetched, and unpacks it.
    fn take(&self, wanted: Option<&str>, limits: Limits) -> Result<String, Problem> {
        let taken = self.verify(wanted).and_then(|sha256| self.unpack(sha256, limits));
        // In any case the space is of use to others.
        let _ = [self.archive(), self.etag(), self.sha256()].map(fs::remove_file);
        if taken.is_err() {
            let _ = fs::remove_dir_all(self.unpacking());
        }
        taken
    }

    fn verify(&self, wanted: Option<&str>) -> Result<String, Problem> {
        let found = sha256_of(&self.archive()).map_err(local("cannot read the archive"))?;
        match wanted.filter(|wanted| *wanted != found) {
            Some(wanted) => Err(rejected(format!("sha256 is {found}, and should be {wanted}"))),
            None => fs::write(self.sha256(), &found).map(|()| found).map_err(local("cannot write")),
        }
    }

    /// Half of it is never seen: the folder gets its name when it is whole, and on the disk.
    fn unpack(&self, sha256: String, limits: Limits) -> Result<String, Problem> {
        let (part, whole) = (self.unpacking(), self.package());
        for old in [&part, &whole] {
            remove(old).map_err(local("cannot clear the volume"))?;
        }
        let unpacked = unpack::unpack(&self.archive(), &part.join(package::FILES), limits)?;
        println!("{} bytes in {} entries", unpacked.bytes, unpacked.entries);
        let finish = || {
            fs::write(part.join(package::SHA256), &sha256)?;
            nix::unistd::syncfs(&File::open(&part)?)?;
            fs::rename(&part, &whole)
        };
        finish().map_err(local("cannot write"))?;
        Ok(sha256)
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sha256_of(path: &Path) -> io::Result<String> {
    struct Hasher(Sha256);
    impl io::Write for Hasher {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(Sha256::new());
    io::copy(&mut io::BufReader::with_capacity(1 << 16, File::open(path)?), &mut hasher)?;
    Ok(hexadecimal(&hasher.0.finalize()))
}
