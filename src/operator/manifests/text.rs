//! Objects to text: YAML, and YAML with expressions of Helm in it.
use anyhow::Context;
use serde::Serialize;

/// One YAML document; keys in alphabetical order, as `kubectl get -o yaml` prints them.
pub fn yaml(object: &impl Serialize) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(object).context("cannot be written as YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Several documents.
pub fn documents(objects: &[String]) -> String {
    objects.join("---\n")
}

/// Puts expressions in the place of their marks. A mark is a value or a part of one; but where the expression ends with
/// a line break, the mark's whole line gives way to it (an entry of a map, whose value means nothing, or of a list), at
/// the same indentation, and `COLUMN` in the expression is that indentation.
pub fn fill(yaml: &str, expressions: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(yaml.len());
    for line in yaml.lines() {
        let columns = line.len() - line.trim_start().len();
        let is_whole = |(mark, text): &&(&str, &str)| text.ends_with('\n') && line.contains(mark);
        if let Some((_, text)) = expressions.iter().find(is_whole) {
            for replacement in text.lines() {
                filled.push_str(&" ".repeat(columns));
                filled.push_str(&replacement.replace("COLUMN", &columns.to_string()));
                filled.push('\n');
            }
        } else {
            let line = expressions.iter().fold(line.to_owned(), |line, (mark, text)| line.replace(mark, text));
            filled.push_str(&line);
            filled.push('\n');
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn a_mark_is_a_value_a_part_of_one_or_a_whole_line() {
        let yaml = "spec:\n  a: __x__\n  b: \"1 __x__ 2\"\n  c:\n    __y__: ''\n  d:\n  - __z__\n";
        let filled = fill(
            yaml,
            &[
                ("__x__", "{{ X }}"),
                ("__y__", "{{- Y | nindent COLUMN }}\n"),
                ("__z__", "{{- range Z }}\n- {{ . }}\n{{- end }}\n"),
            ],
        );
        let expected = "spec:\n  a: {{ X }}\n  b: \"1 {{ X }} 2\"\n  c:\n    {{- Y | nindent 4 }}\n  d:\n  \
                        {{- range Z }}\n  - {{ . }}\n  {{- end }}\n";
        assert_eq!(filled, expected);
    }
}
