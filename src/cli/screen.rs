//! A terminal that is drawn anew in place; plain lines elsewhere.
use std::fmt::Write;

use anyhow::Result;
use console::{Term, strip_ansi_codes, truncate_str};

use super::output::{for_locale, printable};

/// Standard output as a place to draw on.
pub(super) struct Screen {
    term: Term,
    in_color: bool,
    drawn: usize,
}

impl Screen {
    pub fn new() -> Self {
        // Where colours are not wanted, the cursor still moves.
        let in_color = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
        Self { term: Term::stdout(), in_color, drawn: 0 }
    }

    /// In-place drawing makes sense: a person looks, and the cursor can be moved.
    pub fn is_terminal(&self) -> bool {
        self.term.is_term()
    }

    /// Columns; None where there is no terminal.
    pub fn width(&self) -> Option<usize> {
        self.is_terminal().then(|| usize::from(self.term.size().1))
    }

    /// Lines that can be drawn in place: the cursor needs one, and cannot go back above the upper edge.
    pub fn lines_max(&self) -> usize {
        usize::from(self.term.size().0).saturating_sub(1).max(1)
    }

    /// Replaces what was drawn last. What does not fit is left out.
    pub fn draw(&mut self, lines: &[String]) -> Result<()> {
        let size = (self.lines_max(), usize::from(self.term.size().1));
        let (text, drawn) = frame(lines, self.drawn, size, self.in_color);
        self.term.write_str(&for_locale(&text))?;
        self.term.flush()?;
        self.drawn = drawn;
        Ok(())
    }
}

/// `(text, lines in it)` that replaces the `drawn` lines above the cursor, within `(lines, columns)`. One write, each
/// line over the old one: nothing flickers.
fn frame(lines: &[String], drawn: usize, (lines_max, width): (usize, usize), in_color: bool) -> (String, usize) {
    let lines: Vec<_> = lines.iter().map(|line| printable(line)).collect();
    let mut shown: Vec<&str> = lines.iter().map(|line| &**line).collect();
    let omitted = format!("… {} more lines: make the window higher", lines.len().saturating_sub(lines_max - 1));
    if lines.len() > lines_max {
        shown.truncate(lines_max - 1);
        shown.push(&omitted);
    }
    let mut text = if drawn > 0 { format!("\x1b[{drawn}A\r") } else { String::new() };
    for line in &shown {
        let line = truncate_str(line, width, "…");
        let line = if in_color { line } else { strip_ansi_codes(&line).into_owned().into() };
        let _ = writeln!(text, "{line}\x1b[K");
    }
    text.push_str("\x1b[J");
    (text, shown.len())
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn a_frame_is_drawn_over_the_one_before() {
        let lines = ["\x1b[32m✔ Complete\x1b[0m".to_owned(), "web-0 is a long line".to_owned()];
        let first = frame(&lines, 0, (5, 12), false);
        assert_eq!(
            first,
            ("✔ Complete\x1b[K\nweb-0 is a …\x1b[K\n\x1b[J".to_owned(), 2),
            "plain, and within the width"
        );
        let second = frame(&lines, 2, (5, 80), true);
        assert!(second.0.starts_with("\x1b[2A\r\x1b[32m✔ Complete\x1b[0m\x1b[K\n"), "{second:?}");
    }

    #[test]
    fn what_is_higher_than_the_screen_is_counted() {
        let lines: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        let (text, drawn) = frame(&lines, 0, (4, 80), false);
        assert_eq!(drawn, 4);
        assert!(text.contains("2\x1b[K\n… 6 more lines: make the window higher"), "{text:?}");
    }
}
