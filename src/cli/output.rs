//! What is printed, and `-o`: other forms of what is shown.
use std::sync::OnceLock;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

/// One line of standard output.
pub(super) fn say(line: &str) {
    anstream::println!("{}", for_locale(line));
}

/// One line of standard error.
pub(super) fn note(line: &str) {
    anstream::eprintln!("{}", for_locale(line));
}

/// The line as this locale can show it.
pub(super) fn for_locale(line: &str) -> String {
    static IS_ASCII: OnceLock<bool> = OnceLock::new();
    let variables = || ["LC_ALL", "LC_CTYPE", "LANG"].map(|name| std::env::var(name).unwrap_or_default());
    if *IS_ASCII.get_or_init(|| is_ascii(&variables())) { ascii(line) } else { line.to_owned() }
}

/// The locale that these variables choose, the first that is set, is not UTF-8. None is set by default on Windows and in many
/// containers: that says nothing.
fn is_ascii(variables: &[String]) -> bool {
    let chosen = variables.iter().find(|value| !value.is_empty());
    chosen.is_some_and(|value| !value.to_lowercase().replace('-', "").contains("utf8"))
}

/// Our own signs as ASCII, each as wide as before: columns stay. What people have written is theirs.
fn ascii(line: &str) -> String {
    let plain = |sign: char| match sign {
        '─' | '•' => '-',
        '│' | '├' => '|',
        '└' => '`',
        '→' => '>',
        '…' => '~',
        '✔' => '+',
        '✖' => 'x',
        '◌' | '⟳' => '*',
        '◷' => '?',
        '█' => '#',
        '░' => '.',
        '□' | '○' => 'o',
        other => other,
    };
    line.chars().map(plain).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Wide,
    Json,
    Yaml,
    Name,
}

impl Output {
    /// Prints it as JSON where that is asked for, else as YAML.
    pub fn print(self, object: &impl Serialize) -> Result<()> {
        let text = match self {
            Self::Json => serde_json::to_string_pretty(object)?,
            _ => serde_saphyr::to_string(object)?,
        };
        anstream::println!("{text}"); // data, whatever the locale
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_without_utf8_gets_ascii() {
        let of = |variables: [&str; 3]| is_ascii(&variables.map(str::to_owned));
        assert!(of(["", "", "C"]) && of(["C", "", "en_US.UTF-8"]) && of(["", "POSIX", ""]));
        assert!(!of(["", "", "C.UTF-8"]) && !of(["", "", "de_DE.utf8"]) && !of(["", "", ""]));
    }

    #[test]
    fn signs_keep_their_width() {
        let line = "├─# revision 5 (1.1 → 1.2) ✔ █░ … größer";
        assert_eq!(ascii(line), "|-# revision 5 (1.1 > 1.2) + #. ~ größer");
        assert_eq!(ascii("└─□ web-0 ◷ ✖ ◌ •"), "`-o web-0 ? x * -");
    }
}
