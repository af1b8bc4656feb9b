//! A line of the log: one JSON object (RFC 8259) in ASCII, of at most so many bytes.

/// What ends a line to which something did not fit.
const CUT: &str = ",\"cut\":true}";

pub struct Line {
    text: String,
    longest: usize,
    cut: bool,
}

impl Line {
    pub fn new(longest: usize) -> Self {
        Line { text: String::with_capacity(longest), longest, cut: false }
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, name: &str, value: &str) {
        let start = if self.text.is_empty() { '{' } else { ',' };
        let mut member = String::from(start);
        quote(name.as_bytes(), &mut member);
        member.push(':');
        member.push_str(value);
        // A member is there as a whole or not at all: a line is JSON, whatever strangers write.
        if self.text.len() + member.len() + CUT.len() > self.longest {
            self.cut = true;
        } else {
            self.text.push_str(&member);
        }
    }

    /// Text of strangers; `cut` says that there was more of it.
    pub fn text(&mut self, name: &str, value: &[u8], cut: bool) {
        let mut quoted = String::with_capacity(value.len() + 8);
        quote(value, &mut quoted);
        if cut {
            quoted.truncate(quoted.len() - 1);
            quoted.push_str("...\"");
        }
        self.raw(name, &quoted);
    }

    pub fn end(mut self) -> String {
        self.text.push_str(if self.cut { CUT } else { "}" });
        self.text
    }
}

/// A JSON string of visible ASCII. Every other byte is an escape, that of the character with its number: line breaks can not
/// make lines, escape sequences reach no terminal, and nothing has to be valid UTF-8.
fn quote(value: &[u8], out: &mut String) {
    out.push('"');
    for &byte in value {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(byte.into()),
            _ => {
                out.push_str("\\u00");
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
                }
            }
        }
    }
    out.push('"');
}
