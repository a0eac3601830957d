//! What is printed, and `-o`: other forms of what is shown.
//!
//! What objects of the cluster say is written by others: every line passes [`printable`] before it reaches a terminal.
use std::{borrow::Cow, sync::OnceLock};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

/// One line of standard output.
pub(super) fn say(line: &str) {
    anstream::println!("{}", for_locale(&printable(line)));
}

/// One line of standard error.
pub(super) fn note(line: &str) {
    anstream::eprintln!("{}", for_locale(&printable(line)));
}

/// The text without what commands a terminal: control characters but the end of a line, marks that reverse the direction of
/// writing, and escape sequences but those that set a colour or a weight, which are our own. Each is replaced by `�`.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let commands = |sign: char| (sign.is_control() && sign != '\n') || is_direction(sign);
    if !text.contains(commands) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let length = style_length(rest).unwrap_or(0);
        if length > 0 {
            shown.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        shown.push(if commands(sign) { char::REPLACEMENT_CHARACTER } else { sign });
        rest = &rest[sign.len_utf8()..];
    }
    shown.into()
}

/// Embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9).
fn is_direction(sign: char) -> bool {
    matches!(sign, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of the escape sequence that the text begins with, if it is one that [`anstyle`] writes for us: `ESC [ … m` with
/// 0 (plain), 1 (bold), 2 (dimmed) or a colour of the letters.
fn style_length(text: &str) -> Option<usize> {
    let codes = text.strip_prefix("\x1b[")?;
    let end = codes.find('m')?;
    let is_ours = |code: &str| matches!(code.parse(), Ok(0..=2 | 30..=37 | 39 | 90..=97));
    codes[..end].split(';').all(is_ours).then_some("\x1b[".len() + end + 1)
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
        anstream::println!("{text}"); // data, in any locale
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version, a reason or a kubelet's words must not move the cursor, set a title or fill the clipboard.
    #[test]
    fn what_commands_a_terminal_is_not_printed() {
        let evil = "1\x1b]0;PWNED\x07\x1b[1A\x1b[2K\x1b[8mX\r\u{9b}31m\u{202e}\t\x7f";
        assert_eq!(printable(evil), "1�]0;PWNED��[1A�[2K�[8mX��31m���");
        let ours = "\x1b[1m\x1b[32m✔ Complete\x1b[0m\nnext";
        assert!(matches!(printable(ours), Cow::Owned(shown) if shown == ours));
        assert!(matches!(printable("größer … ✔"), Cow::Borrowed(_)));
        for cut in ["\x1b", "\x1b[", "\x1b[3", "\x1b[;m", "\x1b[300m"] {
            assert!(!printable(cut).contains('\x1b'), "{cut:?}");
        }
    }

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
