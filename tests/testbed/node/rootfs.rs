//! The root of a container: a folder in memory onto which the machine's programs, the image and the
//! Pod's volumes are bound.
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::{FsFlags, statvfs},
    unistd::{chdir, pivot_root},
};
use serde::{Deserialize, Serialize};

/// Where a container finds its image's folder.
pub const IMAGE: &str = "/image";
/// The machine's root, until everything is bound.
const MACHINE: &str = "/.machine-root";
/// The machine's folders whose entries appear one by one, see [`bind_entries`].
const ENTRIES: &str = "/.machine";

/// Bound as they are, read-only: programs and libraries.
const FOLDERS: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix"];
/// Folders in which Pods like to have mount points.
const FOLDERS_BY_ENTRY: [&str; 2] = ["etc", "opt"];
/// The machine's roots of trust in `/etc`: an image has none unless it brings some.
const WITHHELD: [&str; 3] = ["ca-certificates", "pki", "ssl"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// One mount of a volume or a file that the node provides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the machine; absolute, without symbolic links.
    pub source: PathBuf,
    /// In the container; absolute.
    pub target: PathBuf,
    pub read_only: bool,
}

/// What a root is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Root {
    /// The image's folder on the machine.
    pub image: PathBuf,
    /// In this order, so that one may lie within an earlier one.
    pub mounts: Vec<Mount>,
}

const NONE: Option<&str> = None;

/// Makes a root at the empty folder `root` and moves this process into it. The process must have a
/// mount namespace of its own, and be in the PID namespace whose /proc the container shall see.
pub fn enter(root: &Path, content: &Root) -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("cannot make mounts private")?;
    memory(root, "mode=0755")?;
    for name in FOLDERS {
        bind_folder(root, name)?;
    }
    for name in FOLDERS_BY_ENTRY {
        bind_entries(root, name)?;
    }
    devices(root)?;
    private_folders(root)?;
    proc(root)?;
    bind(&content.image, &within(root, Path::new(IMAGE)), true)?;
    pivot(root)?;
    // Only now do symbolic links in mount paths lead where the container's processes will see them lead.
    for Mount { source, target, read_only } in &content.mounts {
        let source = within(Path::new(MACHINE), source);
        bind(&source, target, *read_only).with_context(|| format!("cannot mount {}", target.display()))?;
    }
    umount2(MACHINE, MntFlags::MNT_DETACH).context("cannot leave the machine's root")?;
    fs::remove_dir(MACHINE)?;
    Ok(())
}

/// The place of an absolute path below another root.
fn within(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn memory(target: &Path, options: &str) -> Result<()> {
    fs::create_dir_all(target)?;
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
        .with_context(|| format!("cannot mount a tmpfs at {}", target.display()))
}

fn bind_folder(root: &Path, name: &str) -> Result<()> {
    let source = Path::new("/").join(name);
    let Ok(metadata) = source.symlink_metadata() else { return Ok(()) };
    if metadata.is_symlink() {
        symlink(fs::read_link(&source)?, root.join(name))?;
        return Ok(());
    }
    bind(&source, &root.join(name), true)
}

/// A folder of the container's own, with a symbolic link to each entry of the machine's folder, so
/// that mount points can be made in it.
fn bind_entries(root: &Path, name: &str) -> Result<()> {
    let source = Path::new("/").join(name);
    let own = root.join(name);
    fs::create_dir_all(&own)?;
    if !source.is_dir() {
        return Ok(());
    }
    let bound = Path::new(ENTRIES).join(name);
    bind(&source, &within(root, &bound), true)?;
    for entry in fs::read_dir(&source)? {
        let entry = entry?.file_name();
        if name == "etc" && WITHHELD.iter().any(|withheld| entry == *withheld) {
            continue;
        }
        symlink(bound.join(&entry), own.join(&entry))?;
    }
    Ok(())
}

fn devices(root: &Path) -> Result<()> {
    let dev = root.join("dev");
    memory(&dev, "mode=0755,size=64k")?;
    for name in DEVICES {
        bind(&Path::new("/dev").join(name), &dev.join(name), false)?;
    }
    memory(&dev.join("shm"), "mode=1777")?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}

fn private_folders(root: &Path) -> Result<()> {
    let make = |path: &str, mode| fs::DirBuilder::new().recursive(true).mode(mode).create(root.join(path));
    for path in ["root", "home", "mnt", "run", "srv", "var/lib", "var/log", "var/cache"] {
        make(path, 0o755)?;
    }
    for path in ["tmp", "var/tmp"] {
        make(path, 0o755)?;
        fs::set_permissions(root.join(path), std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    }
    symlink("/run", root.join("var/run"))?;
    Ok(())
}

fn proc(root: &Path) -> Result<()> {
    let target = root.join("proc");
    fs::create_dir_all(&target)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &target, Some("proc"), flags, NONE).context("cannot mount /proc")
}

fn pivot(root: &Path) -> Result<()> {
    let old = within(root, Path::new(MACHINE));
    fs::create_dir_all(&old)?;
    pivot_root(root, &old).context("cannot change the root")?;
    chdir("/")?;
    Ok(())
}

/// Makes `source` (a folder with all that is mounted in it, or a file) appear at `target`.
fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    let bind = || -> Result<()> {
        make_mount_point(source, target)?;
        mount(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
        if read_only { protect(target) } else { Ok(()) }
    };
    bind().with_context(|| format!("cannot bind {} to {}", source.display(), target.display()))
}

fn make_mount_point(source: &Path, target: &Path) -> io::Result<()> {
    if source.is_dir() {
        return fs::create_dir_all(target);
    }
    // A link to the machine's file gives way: bound over, it would hide that file for every name it has.
    if target.is_symlink() {
        fs::remove_file(target)?;
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::options().append(true).create(true).open(target).map(drop)
}

/// Makes a mount read-only, and what is mounted in it.
fn protect(target: &Path) -> Result<()> {
    let target = target.canonicalize()?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    for point in points.filter(|point| point.starts_with(&target)) {
        // Flags that a mount has from outside this user namespace must be kept, or the kernel refuses.
        let kept = statvfs(&point).map_or(MsFlags::empty(), |stat| kept_flags(stat.flags()));
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept;
        mount(NONE, &point, NONE, flags, NONE).with_context(|| format!("cannot make {} read-only", point.display()))?;
    }
    Ok(())
}

/// Blanks and the like are written as octal numbers.
fn unescape(field: &str) -> PathBuf {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into()
}

fn kept_flags(flags: FsFlags) -> MsFlags {
    [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ]
    .into_iter()
    .filter(|(present, _)| flags.contains(*present))
    .fold(MsFlags::empty(), |kept, (_, flag)| kept | flag)
}
