//! Archives, built here as none should be.
use std::{
    fs,
    io::{Cursor, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    slice::from_ref,
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{
    problem::Problem,
    tree::{Limits, Tree},
    unpack::unpack,
};

const LIMITS: Limits = Limits { archive_bytes: 1 << 20, bytes: 1 << 20, entries: 100 };

/// An entry as it stands in an archive, valid or not.
#[derive(Clone, Debug)]
struct Entry {
    kind: EntryType,
    path: String,
    target: String,
    mode: u32,
    content: Vec<u8>,
}

fn entry(kind: EntryType, path: &str, target: &str) -> Entry {
    Entry { kind, path: path.into(), target: target.into(), mode: 0o644, content: Vec::new() }
}

fn file(path: &str, content: &str) -> Entry {
    Entry { content: content.into(), ..entry(EntryType::Regular, path, "") }
}

fn link(path: &str, target: &str) -> Entry {
    entry(EntryType::Symlink, path, target)
}

fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
        header.as_old_mut().linkname[..entry.target.len()].copy_from_slice(entry.target.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_size(entry.content.len() as u64);
        header.set_mode(entry.mode);
        header.set_cksum();
        builder.append(&header, entry.content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gz(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zip(entries: &[Entry]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for entry in entries {
        let options = SimpleFileOptions::default().unix_permissions(entry.mode);
        match entry.kind {
            EntryType::Symlink => writer.add_symlink(&entry.path, &entry.target, options).unwrap(),
            EntryType::Directory => writer.add_directory(&entry.path, options).unwrap(),
            _ => {
                writer.start_file(&entry.path, options).unwrap();
                writer.write_all(&entry.content).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

/// Unpacks into `package` of a new folder.
fn unpacked(archive: &[u8]) -> (tempfile::TempDir, Result<Tree, Problem>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("archive");
    fs::write(&file, archive).unwrap();
    let result = unpack(&file, &folder.path().join("package"), LIMITS);
    fs::remove_file(file).unwrap();
    (folder, result)
}

fn refusal(archive: &[u8]) -> String {
    match unpacked(archive).1.err() {
        Some(Problem::Rejected(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// C8
#[test]
fn what_is_packed_is_there_whatever_packed_it() {
    let program = Entry { mode: 0o4_750, ..file("web-1.4/bin/web", "#!/bin/sh\n") };
    let private = Entry { mode: 0o600, ..file("web-1.4/etc/web.conf", "port: 80\n") };
    let folder = entry(EntryType::Directory, "./web-1.4/empty/", "");
    let entries = [folder, program, private, link("web-1.4/bin/current", "../bin/./web"), link("latest", "web-1.4")];
    let plain = tar(&entries);
    let two_members = [gz(&plain[..512]), gz(&plain[512..])].concat();
    for archive in [gz(&plain), two_members, zstd::encode_all(plain.as_slice(), 0).unwrap(), zip(&entries)] {
        let (folder, result) = unpacked(&archive);
        let tree = result.map_err(|problem| format!("{problem:?}")).unwrap();
        assert_eq!(tree.bytes, 19);
        let root = folder.path().join("package");
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7_777;
        assert_eq!(fs::read_to_string(root.join("latest/bin/current")).unwrap(), "#!/bin/sh\n");
        assert_eq!(fs::read_to_string(root.join("web-1.4/etc/web.conf")).unwrap(), "port: 80\n");
        assert_eq!(
            (mode("web-1.4/bin/web"), mode("web-1.4/etc/web.conf")),
            (0o755, 0o644),
            "no setuid, and all may read"
        );
        assert!(root.join("web-1.4/empty").is_dir());
    }
}

#[test]
fn a_name_may_be_long() {
    let path = format!("{}/x", vec!["y".repeat(200); 18].join("/"));
    let name = Entry { content: path.clone().into(), ..entry(EntryType::GNULongName, "././@LongLink", "") };
    let (folder, result) = unpacked(&gz(&tar(&[name, file("x", "deep")])));
    assert!(result.is_ok());
    assert_eq!(fs::read_to_string(folder.path().join("package").join(path)).unwrap(), "deep");
}

#[test]
fn a_hard_link_is_another_name_of_a_file_before_it() {
    let (folder, result) = unpacked(&gz(&tar(&[file("a", "one"), entry(EntryType::Link, "b", "./a")])));
    assert!(result.is_ok());
    assert_eq!(fs::read_to_string(folder.path().join("package/b")).unwrap(), "one");
}

/// C8: refused, by name.
#[test]
fn nothing_leads_out_of_the_package() {
    let hard = |path: &str, target: &str| entry(EntryType::Link, path, target);
    let deep = "sub/deep/x";
    for (entries, why) in [
        (vec![file("../evil", "")], r#""../evil" leads out of its folder"#),
        (vec![file("a/../../evil", "")], r#""a/../../evil" leads out"#),
        (vec![file("/etc/evil", "")], r#""/etc/evil" is an absolute path"#),
        (vec![entry(EntryType::Directory, "../evil/", "")], "leads out"),
        (vec![link("a", "/etc")], r#""a" is a link that may lead out of the package: "/etc""#),
        (vec![link("a", "..")], "may lead out"),
        (vec![link("a/b", "../../c")], "may lead out"),
        (vec![link("a", "b/../..")], "may lead out"),
        (vec![link("a", "")], "may lead out"),
        // Below the root as it is written, beside it where it leads.
        (vec![file(deep, ""), link("sub/deep/d", "."), link("e", "sub/deep/d/../../..")], "may lead out"),
        (vec![link("a", "b"), file("a", "through")], r#""a" is there twice"#),
        (vec![file("b/x", ""), link("a", "b"), file("a/y", "")], r#""a/y" goes through what is no folder"#),
        (vec![file("a", ""), file("a/b", "")], "goes through what is no folder"),
        (vec![file("a/b", ""), link("a", "b")], "is there twice"),
        (vec![file("a", ""), file("./a", "")], "is there twice"),
        (vec![hard("a", "../../etc/passwd")], "leads out"),
        (vec![hard("a", "/etc/passwd")], "is an absolute path"),
        (vec![hard("a", "b"), file("b", "")], "is a link to what is no file"),
        (vec![link("a", "b"), hard("c", "a")], "is a link to what is no file"),
        (vec![file("b/x", ""), link("a", "b"), hard("c", "a/x")], "is a link to what is no file"),
        (vec![entry(EntryType::Char, "null", "")], r#""null" is neither a file, a folder nor a link"#),
        (vec![entry(EntryType::Block, "sda", "")], "is neither"),
        (vec![entry(EntryType::Fifo, "pipe", "")], "is neither"),
        (vec![file(".", "")], "has no name"),
        (vec![file(&"x".repeat(100), ""), file("a\u{1b}[2J/../..", "")], r"a\u{1b}[2J"),
    ] {
        let found = refusal(&gz(&tar(&entries)));
        assert!(found.starts_with("the archive is refused: ") && found.contains(why), "{found}, not {why}");
    }
    let found = refusal(&zip(&[link("a", "../b")]));
    assert!(found.contains("may lead out"), "{found}");
    // A correct writer of zip files cannot be made to write this.
    let mut evil = zip(&[file("aa/evil", "")]);
    while let Some(at) = evil.windows(3).position(|bytes| bytes == b"aa/") {
        evil[at..at + 2].copy_from_slice(b"..");
    }
    let found = refusal(&evil);
    assert!(found.contains(r#""../evil" leads out of its folder"#), "{found}");
}

#[test]
fn what_is_small_when_packed_is_bounded_when_unpacked() {
    let zeros = vec![0; LIMITS.bytes as usize + 1];
    let large = Entry { content: zeros.clone(), ..file("zeros", "") };
    let ten = |number: usize| Entry { content: vec![0; LIMITS.bytes as usize / 9], ..file(&number.to_string(), "") };
    let halves: Vec<Entry> = (0..10).map(ten).collect();
    for archive in [
        gz(&tar(from_ref(&large))),
        zstd::encode_all(tar(from_ref(&large)).as_slice(), 0).unwrap(),
        zip(&[large]),
        zip(&halves),
        gz(&zeros), // nothing but the end of an archive
    ] {
        assert!(archive.len() < zeros.len() / 2);
        assert_eq!(refusal(&archive), "unpacked, the archive has more than 1 MiB");
    }
    let name = Entry { content: vec![b'x'; 300 << 10], ..entry(EntryType::GNULongName, "././@LongLink", "") };
    assert_eq!(refusal(&gz(&tar(&[name, file("x", "")]))), "the archive is damaged: an entry's header is too long");
    let files: Vec<Entry> = (0..101).map(|number| file(&number.to_string(), "")).collect();
    let folders = ["a", "b", "c"].map(|first| entry(EntryType::Directory, &format!("{first}{}", "/d".repeat(45)), ""));
    for entries in [files, folders.to_vec()] {
        assert_eq!(refusal(&gz(&tar(&entries))), "the archive has more than 100 entries");
        assert_eq!(refusal(&zip(&entries)), "the archive has more than 100 entries");
    }
}

/// Its directory is read an entry at a time: one of millions would not fit into memory. Here its last entry is damaged.
#[test]
fn a_zips_directory_is_read_no_further_than_its_bound() {
    let files: Vec<Entry> = (0..150).map(|number| file(&number.to_string(), "")).collect();
    let mut many = zip(&files);
    let last = many.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    many[last] = b'x';
    assert_eq!(refusal(&many), "the archive has more than 100 entries");
}

/// What follows its end record is of no use to anybody, and would be read into memory.
#[test]
fn a_zips_end_record_is_read_no_further_than_its_bound() {
    let with = |bytes: usize| {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.set_raw_zip64_extensible_data_sector(vec![0; bytes].into_boxed_slice());
        writer.start_file("a", SimpleFileOptions::default()).unwrap();
        let mut archive = writer.finish().unwrap().into_inner();
        let short = archive.len() - 22;
        archive[short + 8..short + 12].fill(0xff); // how many files there are, the long record says
        archive
    };
    assert!(unpacked(&with(1 << 10)).1.is_ok());
    assert_eq!(refusal(&with(1 << 20)), "the archive is damaged: i/o error: its end record is too long");
}

#[test]
fn a_zip_has_no_file_twice() {
    let mut twice = zip(&[file("aa", "one"), file("ab", "two")]);
    while let Some(at) = twice.windows(2).position(|bytes| bytes == b"ab") {
        twice[at + 1] = b'a';
    }
    assert_eq!(refusal(&twice), r#"the archive is refused: "aa" is there twice"#);
}

#[test]
fn what_is_no_archive_or_damaged_is_said_to_be() {
    let good = gz(&tar(&[file("a", &"content".repeat(1_000))]));
    assert_eq!(refusal(b"<html>Log in"), r#"it is none of tar.gz, tar.zst and zip: it begins with "<htm""#);
    assert!(refusal(b"").contains("begins with \"\""));
    assert!(refusal(&good[..good.len() / 2]).contains("the archive is damaged"));
    assert!(refusal(&good[..good.len() - 1]).contains("the archive is damaged"), "its checksum is cut off");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x10;
    assert!(refusal(&flipped).contains("the archive is damaged"));
    assert!(refusal(&gz(b"no tar")).contains("the archive is damaged"));
    assert!(refusal(b"PK\x03\x04 and so on").contains("the archive is damaged"));
}

/// Few names, so that entries meet.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", ".", ".."]).prop_map(str::to_owned)
}

fn path() -> impl Strategy<Value = String> {
    (any::<bool>(), prop::collection::vec(name(), 1..5))
        .prop_map(|(absolute, names)| format!("{}{}", if absolute { "/" } else { "" }, names.join("/")))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kinds = [EntryType::Regular, EntryType::Directory, EntryType::Symlink, EntryType::Symlink, EntryType::Link];
    (prop::sample::select(kinds.to_vec()), prop::collection::vec(name(), 1..4), path()).prop_map(
        |(kind, names, target)| {
            let content = if kind == EntryType::Regular { b"inside".to_vec() } else { Vec::new() };
            Entry { content, ..entry(kind, &names.join("/"), &target) }
        },
    )
}

/// What a path that is there leads to, below or beside the root.
fn escapes(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Links to nothing, and round in circles, lead nowhere.
        if path.canonicalize().is_ok_and(|target| !target.starts_with(root)) {
            found.push(path.display().to_string());
        }
        if path.is_dir() && !path.is_symlink() {
            escapes(root, &path, found);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Of any archive, taken or refused half-way: no link leads out, and nothing beside the package changes.
    #[test]
    fn no_archive_reaches_out(entries in prop::collection::vec(any_entry(), 1..12)) {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().canonicalize().unwrap().join("x/y/package");
        fs::create_dir_all(root.parent().unwrap()).unwrap();
        symlink("/", outside.path().join("c")).unwrap();
        let mut tree = Tree::new(&root, LIMITS).unwrap();
        for entry in &entries {
            let (path, target) = (entry.path.as_bytes(), entry.target.as_bytes());
            // What is refused ends the whole; here the others have their chance.
            let _ = match entry.kind {
                EntryType::Regular => tree.file(path, false, &mut entry.content.as_slice()),
                EntryType::Directory => tree.folder(path),
                EntryType::Symlink => tree.link(path, target),
                _ => tree.hard_link(path, target),
            };
        }
        let mut found = Vec::new();
        escapes(&root, &root, &mut found);
        prop_assert!(found.is_empty(), "{found:?} of {entries:?}");
        let beside = |folder: &str| fs::read_dir(outside.path().join(folder)).unwrap().count();
        prop_assert_eq!((beside("."), beside("x"), beside("x/y")), (2, 1, 1));
    }
}
