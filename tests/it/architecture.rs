//! Rules of the repository that no compiler checks. Each failure says what to do.
use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{self, Source};

/// Folders of the library and what each may use of the others. An entry with `::` allows only that module.
/// The order is the data flow; `operator` and `cli` wire things and hold no rule of their own.
const EDGES: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("snapshot", &["api"]),
    ("plan", &["api", "snapshot"]),
    ("status", &["api", "snapshot", "plan"]),
    ("view", &["api", "snapshot", "plan", "status"]),
    // What a person asks for, as a change of a spec, or why it is refused.
    ("command", &["api", "snapshot", "plan", "status", "view"]),
    // `scripted` is the API server of unit tests.
    ("observe", &["api", "snapshot", "scripted"]),
    // Changes come in, outcomes go out; how changes are chosen is none of its business.
    (
        "apply",
        &[
            "api",
            "snapshot",
            "plan::adoption",
            "plan::change",
            "plan::in_place",
            "plan::resize",
            "plan::listener_set::change",
            "plan::listener_set::death::Proof",
            "plan::listener_set::ownership::Write",
            "plan::listener_set::session::Fence",
            "plan::outcome",
            "plan::revision",
            "plan::specimen",
            "scripted",
            "warned",
        ],
    ),
    (
        "operator",
        &["api", "snapshot", "plan", "status", "view", "observe", "apply", "connection", "served", "scripted"],
    ),
    // The Pod side: the same decisions as the controller's, of listeners only.
    (
        "agent",
        &[
            "api",
            "snapshot",
            "plan::listener_set",
            "observe::watch",
            "connection",
            "served",
            "sdk::orphan",
            "sdk::wire",
            "scripted",
        ],
    ),
    // In other people's programs: nothing of Kubernetes, nothing of ours.
    ("sdk", &[]),
    // What a person asks of the API server; nothing of how it is printed.
    ("client", &["api", "snapshot", "command", "scripted"]),
    ("cli", &["api", "snapshot", "plan", "status", "view", "command", "client", "observe", "scripted", "warned"]),
];

/// Folders without clock, I/O, client or randomness.
const PURE: &[&str] = &["api", "snapshot", "plan", "status", "view", "command"];
const PURITY: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

/// Longer files need a line `Long because: …` among their first lines.
const LINES_MAX: usize = 500;
const LONG_BECAUSE: &str = "Long because: ";

/// Files that may contain unsafe code, each block under a `// SAFETY:` comment (clippy checks that).
const UNSAFE_FILES: &[&str] = &["tests/it/simulate/randomness.rs"];
const UNSAFE_CODE: &[&str] =
    &["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "unsafe(", "unsafe_code"];

/// Ids in its first column, with ✓ in its second, must be named by a test: in a line of its doc comment, `/// B7: …`.
const REQUIREMENTS: &str = "docs/dev/requirements.md";
/// Ids that begin so are rows of the process node's page, which `node::` compares with its tests.
const ROWS_OF_THE_NODE: char = 'N';

#[test]
fn folders_use_only_what_is_left_of_them() {
    let mut wrong = Vec::new();
    for source in sources::rust().iter().filter(|source| source.is_in("src")) {
        let Some((folder, _)) = source.path["src/".len()..].split_once('/') else { continue };
        if folder == "bin" {
            continue;
        }
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == folder) else {
            wrong.push(format!("{}: src/{folder} is new: say in EDGES what it may use", source.path));
            continue;
        };
        for (line, used) in uses_of_the_crate(source) {
            let own = used == folder || used.starts_with(&format!("{folder}::"));
            if !own && !allowed.iter().any(|allowed| permits(allowed, &used)) {
                wrong.push(format!("{}:{line}: src/{folder} may not use crate::{used}", source.path));
            }
        }
        wrong.extend(climbs_out(source).map(|line| {
            format!("{}:{line}: another folder is named by crate::…, so that this test sees it", source.path)
        }));
    }
    assert_none(&wrong);
}

/// Who builds on the SDK builds none of Kubernetes' types.
#[test]
fn the_sdk_is_light() {
    let arguments = ["tree", "-e", "normal", "--no-default-features", "--features", "sdk", "--prefix", "none"];
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(arguments).args(["--locked", "--offline", "--manifest-path", "Cargo.toml"]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("hyper"), "{crates:?}");
    let heavy: Vec<_> = crates
        .iter()
        .filter(|name| {
            name.starts_with("kube") || ["k8s-openapi", "schemars", "jiff", "axum", "clap", "rustls"].contains(name)
        })
        .map(|name| format!("feature sdk pulls {name}: move it behind core, agent or operator in Cargo.toml"))
        .collect();
    assert_none(&heavy);
}

/// `plan::change` permits `plan::change::Change` and the types that `plan` re-exports from it, by their names.
fn permits(allowed: &str, used: &str) -> bool {
    let re_exported = |folder| {
        let mut parts = used.strip_prefix(folder).and_then(|rest| rest.strip_prefix("::")).unwrap_or("").split("::");
        parts.next().is_some_and(|name| name.starts_with(char::is_uppercase))
    };
    used == allowed
        || used.starts_with(&format!("{allowed}::"))
        || allowed.split_once("::").is_some_and(|(folder, _)| re_exported(folder))
}

/// `(line, "plan::change::Change")` for each `crate::plan::change::Change` in code; groups in braces are unfolded.
fn uses_of_the_crate(source: &Source) -> Vec<(usize, String)> {
    let mut uses = Vec::new();
    let lines: Vec<_> = source.code_lines().collect();
    for (index, (number, line)) in lines.iter().enumerate() {
        for (at, found) in line.match_indices("crate::") {
            if line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                continue;
            }
            // A `use` group may span lines: read on to the semicolon.
            let mut rest = line[at + found.len()..].to_owned();
            let mut next = index + 1;
            while rest.contains('{') && !rest.contains(';') && next < lines.len() && line.contains("use ") {
                rest.push_str(lines[next].1.trim());
                next += 1;
            }
            uses.extend(unfold(&rest).into_iter().map(|path| (*number, path)));
        }
    }
    uses
}

/// `a::{b, c::d}` to `a::b`, `a::c::d`; anything after the path is ignored.
pub fn unfold(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':'))).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let Some(group) = rest.strip_prefix('{') else { return vec![path.trim_end_matches("::").to_owned()] };
    let mut depth = 1;
    let mut members = vec![String::new()];
    for c in group.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match (c, depth) {
            (_, 0) => break,
            (',', 1) => members.push(String::new()),
            _ => members.last_mut().expect("starts with one member").push(c),
        }
    }
    let members = members.iter().map(|member| member.trim()).filter(|member| !member.is_empty());
    members.flat_map(unfold).map(|member| format!("{path}{member}")).collect()
}

/// Lines at module level whose `super::` leaves the file's folder.
fn climbs_out(source: &Source) -> impl Iterator<Item = usize> {
    let parts = source.path["src/".len()..].split('/').count();
    let depth = if source.path.ends_with("/mod.rs") { parts - 1 } else { parts };
    source
        .code_lines()
        .filter(move |(_, line)| {
            let used = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("use ").unwrap_or_default();
            used.matches("super::").count() >= depth
        })
        .map(|(number, _)| number)
}

#[test]
fn pure_folders_deny_clocks_and_io() {
    let wrong: Vec<_> = sources::rust()
        .iter()
        .filter(|source| PURE.iter().any(|folder| source.path == format!("src/{folder}/mod.rs")))
        .filter(|source| !source.text.lines().any(|line| line == PURITY))
        .map(|source| format!("{}: must open with {PURITY}", source.path))
        .collect();
    assert_none(&wrong);
    let relaxed: Vec<_> = sources::rust()
        .iter()
        .filter(|source| PURE.iter().any(|folder| source.is_in(&format!("src/{folder}"))))
        .flat_map(|source| {
            let lines = source.code_lines().filter(|(_, line)| line.contains("allow(clippy::disallowed_"));
            lines.map(|(line, _)| format!("{}:{line}: pure code stays pure", source.path)).collect::<Vec<_>>()
        })
        .collect();
    assert_none(&relaxed);
}

#[test]
fn long_files_say_why() {
    let written_by_hand = |source: &&Source| {
        ["rs", "sh", "go", "py"].iter().any(|extension| source.has_extension(extension)) || source.path == "Makefile"
    };
    let wrong: Vec<_> = sources::all()
        .iter()
        .filter(written_by_hand)
        .filter(|source| source.text.lines().count() > LINES_MAX)
        .filter(|source| !source.text.lines().take(20).any(|line| line.contains(LONG_BECAUSE)))
        .map(|source| {
            let lines = source.text.lines().count();
            format!("{}: {lines} lines: split it, or say `{LONG_BECAUSE}…` at its head", source.path)
        })
        .collect();
    assert_none(&wrong);
}

#[test]
fn unsafe_code_is_where_it_is_expected() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources::rust().iter().filter(|source| source.path != file!()) {
        for (number, line) in source.code_lines() {
            if !UNSAFE_CODE.iter().any(|code| line.contains(code)) {
                continue;
            }
            if UNSAFE_FILES.contains(&source.path.as_str()) {
                used.insert(source.path.clone());
            } else {
                wrong.push(format!("{}:{number}: unsafe code; list the file in UNSAFE_FILES", source.path));
            }
        }
    }
    wrong.extend(
        UNSAFE_FILES
            .iter()
            .filter(|file| !used.contains(**file))
            .map(|file| format!("{file}: listed in UNSAFE_FILES, but has no unsafe code")),
    );
    assert_none(&wrong);
}

/// Clippy does the work; this sees to it that nobody turns it off.
#[test]
fn lints_are_on() {
    let manifest = sources::all().into_iter().find(|source| source.path == "Cargo.toml").expect("Cargo.toml").text;
    let mut wrong = Vec::new();
    for lint in [
        "unsafe_code = \"deny\"",
        "missing_docs = \"warn\"",
        "undocumented_unsafe_blocks = \"warn\"",
        "unwrap_used = \"warn\"",
        "expect_used = \"warn\"",
        "todo = \"warn\"",
        "unimplemented = \"warn\"",
        "dbg_macro = \"warn\"",
    ] {
        if !manifest.lines().any(|line| line == lint) {
            wrong.push(format!("Cargo.toml: [lints] must say {lint}"));
        }
    }
    for source in sources::rust().iter().filter(|source| !source.is_in("tests/it")) {
        for (number, line) in source.code_lines() {
            let allows = line.contains("allow(") || line.contains("expect(clippy");
            if allows
                && ["unwrap_used", "expect_used", "warnings", "clippy::all"].iter().any(|lint| line.contains(lint))
            {
                wrong.push(format!("{}:{number}: panics are for tests and main; return an error", source.path));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn requirements_have_tests_and_tests_have_requirements() {
    let named = requirements_named_by_tests(&sources::rust());
    let page = sources::all().into_iter().find(|source| source.path == REQUIREMENTS).expect(REQUIREMENTS).text;
    let required: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | ✓ | ")).map(|(id, _)| id).collect();
    assert!(required.len() > 30, "{REQUIREMENTS} lists {required:?}");
    let mut wrong: Vec<_> = required
        .iter()
        .filter(|id| !named.contains_key(**id))
        .map(|id| format!("{id}: no test says `/// {id}` in its doc comment"))
        .collect();
    let unlisted = named.iter().filter(|(id, _)| !id.starts_with(ROWS_OF_THE_NODE) && !required.contains(&id.as_str()));
    wrong.extend(unlisted.map(|(id, tests)| format!("{}: {REQUIREMENTS} has no line `| {id} | ✓ | …`", tests[0])));
    assert_none(&wrong);
}

/// Requirement id -> tests whose doc comment has a line that starts with ids, such as `/// B7, R12: …`.
fn requirements_named_by_tests(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources {
        // What stands above an item: doc lines and attributes, in any order.
        let mut above: Vec<&str> = Vec::new();
        for line in source.text.lines().map(str::trim) {
            if line.starts_with("///") || line.starts_with("#[") {
                above.push(line);
                continue;
            }
            if above.iter().any(|line| is_test_attribute(line)) {
                for id in above.iter().filter_map(|line| line.strip_prefix("/// ")).flat_map(leading_ids) {
                    named.entry(id.to_owned()).or_default().push(format!("{}: {line}", source.path));
                }
            }
            above.clear();
        }
    }
    named
}

fn is_test_attribute(line: &str) -> bool {
    line == "#[test]" || line.starts_with("#[tokio::test")
}

fn leading_ids(line: &str) -> impl Iterator<Item = &str> {
    let is_id = |word: &&str| {
        let digits = word.trim_start_matches(|c: char| c.is_ascii_uppercase());
        word.len() - digits.len() == 1 && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    line.split([' ', ','])
        .map(|word| word.trim_end_matches([':', '.']))
        .filter(|word| !word.is_empty())
        .take_while(is_id)
}

/// `make mutants` builds each of these bugs, and says which test finds it.
#[test]
fn mutants_still_apply() {
    let patches: Vec<Source> = sources::all()
        .into_iter()
        .filter(|source| source.is_in("tests/mutants") && source.has_extension("patch"))
        .collect();
    assert!(patches.len() > 20, "tests/mutants has {} patches", patches.len());
    let mut wrong = Vec::new();
    for patch in &patches {
        let mut git = std::process::Command::new("git");
        let checked = git.args(["apply", "--check", &patch.path]).current_dir(sources::root()).output().expect("git");
        if !checked.status.success() {
            wrong.push(format!(
                "{}: make it anew for the code as it is: {}",
                patch.path,
                String::from_utf8_lossy(&checked.stderr)
            ));
        }
    }
    assert_none(&wrong);
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // Put together here, so that this file does not contain them.
    let folders = [["", "work", ""], ["", "root", ""], ["", "home", ""], ["..", "shared", ""]].map(|p| p.join("/"));
    let switches =
        [["GO", "PROXY="], ["GO", "SUMDB="], ["CARGO_REGISTRIES", "_"], ["index.", "crates.io-"]].map(|p| p.concat());
    let mut wrong = Vec::new();
    for source in &sources::all() {
        for (index, line) in source.text.lines().enumerate() {
            let begins_path = |folder: &String| {
                line.match_indices(folder.as_str()).any(|(at, _)| {
                    !line[..at]
                        .ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | ')' | '/'))
                })
            };
            if folders.iter().any(begins_path) || switches.iter().any(|switch| line.contains(switch.as_str())) {
                wrong.push(format!("{}:{}: names a place of one machine: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    let lock = sources::all().into_iter().find(|source| source.path == "Cargo.lock").expect("Cargo.lock").text;
    let crates_io = r#"source = "registry+https://github.com/rust-lang/crates.io-index""#;
    let elsewhere = lock.lines().filter(|line| line.starts_with("source = ") && *line != crates_io);
    wrong.extend(elsewhere.map(|line| format!("Cargo.lock: {line}")));
    assert_none(&wrong);
}

#[test]
fn ignored_tests_say_when_they_run() {
    let mut wrong = Vec::new();
    for source in sources::rust().iter().filter(|source| source.path != file!()) {
        let bare = source.code_lines().filter(|(_, line)| line.trim() == "#[ignore]");
        wrong.extend(bare.map(|(line, _)| format!("{}:{line}: #[ignore = \"runs when …\"]", source.path)));
        let blocks = source.code_lines().filter(|(_, line)| line.trim_start().starts_with("/*"));
        wrong.extend(blocks.map(|(line, _)| format!("{}:{line}: block comment; use //", source.path)));
    }
    assert_none(&wrong);
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The rules above see what they are meant to see.
mod rules {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn uses_are_found_in_groups_and_in_paths() {
        let text =
            "use crate::{\n    api::{A, b::C},\n    plan,\n};\nfn f(x: crate::view::Row) {} // crate::cli\n$crate::no";
        let used: Vec<_> =
            uses_of_the_crate(&source("src/plan/x.rs", text)).into_iter().map(|(_, path)| path).collect();
        assert_eq!(used, ["api::A", "api::b::C", "plan", "view::Row"]);
    }

    #[test]
    fn super_is_followed_out_of_the_folder() {
        let lines = |path, text| climbs_out(&source(path, text)).collect::<Vec<_>>();
        assert_eq!(lines("src/plan/mod.rs", "use super::api;"), [1]);
        assert_eq!(lines("src/plan/x.rs", "use super::y;\npub use super::super::api;"), [2]);
        assert_eq!(lines("src/plan/rollout/x.rs", "use super::super::y;\nuse super::super::super::api;"), [2]);
    }

    #[test]
    fn one_module_can_be_allowed_with_what_is_re_exported_from_it() {
        assert!(permits("plan::change", "plan::change::Change") && permits("plan::change", "plan::Change"));
        assert!(!permits("plan::change", "plan::rollout::plan") && !permits("plan::change", "plan"));
        assert!(permits("api", "api::names") && !permits("api", "apiary"));
    }

    #[test]
    fn only_tests_name_requirements() {
        let text = "/// B7, R12: pulls fail\n/// and more\n#[tokio::test(start_paused = true)]\nasync fn f() {}\n\
                    /// C9\nfn g() {}\n#[test]\n/// X1 is not here: X2\nfn h() {}\n";
        let named = requirements_named_by_tests(&[source("a.rs", text)]);
        assert_eq!(named.keys().collect::<Vec<_>>(), ["B7", "R12", "X1"]);
    }
}
