//! Writing JSON in pure ASCII, to the letter as Python's `json.dumps` does.
/// Appends `text` as a JSON string, with its quotes.
///
/// Characters beyond ASCII are written as `\uXXXX`, in pairs of surrogates
/// beyond the basic plane.
pub fn push_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut rest = text.chars();
    loop {
        let text = rest.as_str();
        let plain = text.bytes().position(needs_escape).unwrap_or(text.len());
        out.push_str(&text[..plain]);
        rest = text[plain..].chars();
        let Some(character) = rest.next() else { break };
        push_escaped(out, character);
    }
    out.push('"');
}

/// Whether a character that begins with this byte is escaped.
fn needs_escape(byte: u8) -> bool {
    !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\')
}

fn push_escaped(out: &mut String, character: char) {
    let short = match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str("\\u");
                for shift in [12, 8, 4, 0] {
                    let digit = usize::from(*unit >> shift & 0xf);
                    out.push(char::from(b"0123456789abcdef"[digit]));
                }
            }
            return;
        }
    };
    out.push_str(short);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_python_does() {
        for (text, json) in [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("a\"b\\c/d", r#""a\"b\\c/d""#),
            ("\n\r\t\u{8}\u{c}", r#""\n\r\t\b\f""#),
            ("\0\u{1f}\u{7f}", r#""\u0000\u001f\u007f""#),
            ("é€", r#""\u00e9\u20ac""#),
            ("😀!", r#""\ud83d\ude00!""#),
        ] {
            let mut out = String::new();
            push_string(&mut out, text);
            assert_eq!(out, json);
        }
    }
}
