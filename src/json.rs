//! Writing JSON in pure ASCII, to the letter as Python's `json.dumps` does.
/// Appends `text` as a JSON string, with its quotes.
///
/// Characters beyond ASCII are written as `\uXXXX`, in pairs of surrogates
/// beyond the basic plane.
pub fn push_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut written = 0;
    for (index, character) in text.char_indices() {
        if needs_escape(character) {
            out.push_str(&text[written..index]);
            push_escaped(out, character);
            written = index + character.len_utf8();
        }
    }
    out.push_str(&text[written..]);
    out.push('"');
}

fn needs_escape(character: char) -> bool {
    matches!(character, '"' | '\\' | '\0'..='\x1f' | '\x7f') || !character.is_ascii()
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
